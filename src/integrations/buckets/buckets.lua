-- Takes from all buckets of a call or from none, settles a call, or renews those under way: ARGV[1] says which.
-- ARGV[2] is the time in ms, or empty for this server's own, which is the same for all replicas. ARGV[3] has the other
-- words, with blanks between them: one long argument costs the caller less than many short ones.
-- A window is a hash: its slots with what was taken in each, their total, the oldest and the newest of them.
-- Calls under way are a sorted set, by when their leases end. SLOT_MS, SLOTS, LEASE_MS and WAIT_MS stand above.

local WINDOW = 'window'
local words, now = {}, nil
for word in string.gmatch(ARGV[3], '%S+') do words[#words + 1] = word end

if ARGV[2] ~= '' then
  now = tonumber(ARGV[2])
else
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local slot = math.floor(now / SLOT_MS)

local function counts_until(which)
  return (which + SLOTS + 1) * SLOT_MS
end

local function slots_of(key)
  local all, slots = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    local which = tonumber(all[i])
    if which then slots[#slots + 1] = {which, tonumber(all[i + 1])} end
  end
  table.sort(slots, function(a, b) return a[1] < b[1] end)
  return slots
end

-- Forgets the slots that do not count any more. Returns the total of the others.
local function forget(key)
  local total, oldest = 0, slot
  for _, each in ipairs(slots_of(key)) do
    if each[1] < slot - SLOTS then
      redis.call('HDEL', key, each[1])
    else
      total, oldest = total + each[2], math.min(oldest, each[1])
    end
  end
  redis.call('HSET', key, 'total', total, 'oldest', oldest)
  return total
end

-- What counts, and the newest slot.
local function window_of(key)
  local kept = redis.call('HMGET', key, 'total', 'oldest', 'newest')
  if not kept[1] then return 0, slot end
  local newest = tonumber(kept[3])
  if newest < slot - SLOTS then
    redis.call('DEL', key)
    return 0, slot
  end
  if tonumber(kept[2]) < slot - SLOTS then return forget(key), newest end
  return tonumber(kept[1]), newest
end

local function window_wait(key, total, limit, amount)
  if total + amount <= limit then return 0 end
  for _, each in ipairs(slots_of(key)) do
    total = total - each[2]
    if total + amount <= limit then return counts_until(each[1]) - now end
  end
  return (SLOTS + 1) * SLOT_MS
end

local function add(key, amount)
  redis.call('HSETNX', key, 'oldest', slot)
  redis.call('HINCRBY', key, slot, amount)
  redis.call('HSET', key, 'newest', slot)
  redis.call('PEXPIRE', key, (SLOTS + 2) * SLOT_MS)
  return redis.call('HINCRBY', key, 'total', amount)
end

local function give_back(key, from, amount)
  local taken = tonumber(redis.call('HGET', key, from) or 0)
  local less = math.min(taken, amount)
  if less > 0 then
    redis.call('HINCRBY', key, from, -less)
    redis.call('HINCRBY', key, 'total', -less)
  end
end

-- Words: id of the call; for each key its kind, limit and amount.
-- Returns, as one text, the slot, and for each key what is used now, ms until nothing is, and ms to wait where it refuses.
local function take()
  local id, found, refused = words[1], {}, false
  for i, key in ipairs(KEYS) do
    local kind, limit, amount = words[i * 3 - 1], tonumber(words[i * 3]), tonumber(words[i * 3 + 1])
    local each = {kind = kind, amount = amount, reset = 0, wait = 0}
    if kind == WINDOW then
      each.used, each.newest = window_of(key)
      each.wait = window_wait(key, each.used, limit, amount)
    else
      redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
      each.used = redis.call('ZCARD', key)
      if each.used >= limit then each.wait = WAIT_MS end
    end
    refused = refused or each.wait > 0
    found[i] = each
  end
  local answer = {slot}
  for i, key in ipairs(KEYS) do
    local each = found[i]
    if not refused then
      if each.kind == WINDOW then
        each.used, each.newest = add(key, each.amount), slot
      else
        redis.call('ZADD', key, now + LEASE_MS, id)
        redis.call('PEXPIRE', key, LEASE_MS)
        each.used = each.used + 1
      end
    end
    if each.kind == WINDOW and each.used > 0 then each.reset = counts_until(each.newest) - now end
    answer[#answer + 1] = each.used
    answer[#answer + 1] = each.reset
    answer[#answer + 1] = each.wait
  end
  return table.concat(answer, ' ')
end

-- Words: id of the call, its slot; for each key its kind and by how much more (or less) was used than was taken.
local function settle()
  local id, from = words[1], words[2]
  for i, key in ipairs(KEYS) do
    local change = tonumber(words[i * 2 + 2])
    if words[i * 2 + 1] ~= WINDOW then
      redis.call('ZREM', key, id)
    elseif change > 0 then
      window_of(key)
      add(key, change)
    else
      give_back(key, from, -change)
    end
  end
end

-- Words: for each key the id of a call under way there. One whose lease ended is not taken up again.
local function renew()
  for i, key in ipairs(KEYS) do
    if redis.call('ZADD', key, 'XX', 'CH', now + LEASE_MS, words[i]) > 0 then
      redis.call('PEXPIRE', key, LEASE_MS)
    end
  end
end

if ARGV[1] == 'take' then return take() end
if ARGV[1] == 'settle' then return settle() end
return renew()
