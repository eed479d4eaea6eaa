"""An answer of each provider's format with everything in it that the gateway reads, whole and as events."""

from __future__ import annotations

from typing import Any

CHAT: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m-1",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": {"content": [{"token": "a", "logprob": -0.5}]},
            "message": {
                "role": "assistant",
                "content": "Let me see.",
                "refusal": "No.",
                "reasoning_content": "Hm.",
                "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}],
                "annotations": [{"type": "url_citation"}],
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                        "extra_content": {"google": {"thought_signature": "c2ln"}},
                    },
                    {"id": "call_2", "type": "custom", "custom": {"name": "free", "input": "x"}},
                ],
                "function_call": {"name": "f", "arguments": "{}"},
            },
        }
    ],
    "usage": {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
}
CHAT_EVENTS: list[Any] = [
    {"id": "c", "model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "Hm."}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {"content": "Let me see.", "refusal": "No."}}]},
    {
        "id": "c",
        "choices": [
            {
                "index": 0,
                "delta": {
                    "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "index": 0}],
                    "tool_calls": [
                        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"index": 1, "id": "call_2", "type": "custom", "custom": {"name": "free", "input": "x"}},
                    ],
                },
            }
        ],
    },
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"id": "c", "choices": [], "usage": CHAT["usage"]},
]

RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "m-1",
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "error": None,
    "output": [
        {
            "type": "reasoning",
            "id": "rs_0123",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
            "encrypted_content": "c2ln",
        },
        {
            "type": "message",
            "id": "msg_0123",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "Let me see.", "annotations": [{"type": "x"}], "logprobs": []},
                {"type": "refusal", "refusal": "No."},
            ],
        },
        {
            "type": "function_call",
            "id": "fc_0123",
            "call_id": "call_1",
            "name": "f",
            "namespace": "mcp__a",
            "arguments": "{}",
        },
        {"type": "custom_tool_call", "id": "ctc_0123", "call_id": "call_2", "name": "free", "input": "x"},
        {"type": "web_search_call", "id": "ws_0123", "action": {"type": "search"}},
    ],
    "usage": {
        "input_tokens": 7,
        "output_tokens": 5,
        "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 2},
    },
}
RESPONSE_EVENTS: list[Any] = [
    {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "in_progress"}},
    {
        "type": "response.output_item.added",
        "sequence_number": 1,
        "output_index": 0,
        "item": {"type": "message", "id": "msg_0123", "content": []},
    },
    {
        "type": "response.content_part.added",
        "item_id": "msg_0123",
        "output_index": 0,
        "content_index": 0,
        "part": {"type": "output_text", "text": "", "annotations": []},
    },
    {
        "type": "response.output_text.delta",
        "item_id": "msg_0123",
        "output_index": 0,
        "content_index": 0,
        "delta": "Let me see.",
        "logprobs": [],
    },
    {"type": "response.refusal.delta", "item_id": "msg_0123", "output_index": 0, "content_index": 0, "delta": "No."},
    {
        "type": "response.output_item.added",
        "output_index": 1,
        "item": {"type": "function_call", "id": "fc_0123", "call_id": "call_1", "name": "f", "arguments": ""},
    },
    {"type": "response.function_call_arguments.delta", "item_id": "fc_0123", "output_index": 1, "delta": "{}"},
    {"type": "response.output_item.done", "output_index": 1, "item": RESPONSE["output"][2]},
    {"type": "response.output_item.added", "output_index": 2, "item": {"type": "reasoning", "id": "rs_0123"}},
    {"type": "response.reasoning_summary_part.added", "output_index": 2, "summary_index": 1, "part": {"type": "x"}},
    {"type": "response.reasoning_summary_text.delta", "output_index": 2, "summary_index": 1, "delta": "Hm."},
    {"type": "response.output_item.done", "output_index": 2, "item": RESPONSE["output"][0]},
    {"type": "response.of_the_future", "output_index": 2, "item_id": "rs_0123"},
    {"type": "response.incomplete", "sequence_number": 9, "response": RESPONSE},
]

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-1",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "c2ln"},
        {"type": "text", "text": "Let me see.", "citations": [{"type": "x"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Riga"}, "caller": {"type": "direct"}},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    ],
    "stop_reason": "stop_sequence",
    "stop_sequence": "a",
    "usage": {
        "input_tokens": 7,
        "output_tokens": 5,
        "cache_read_input_tokens": 2,
        "cache_creation_input_tokens": 1,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": 2},
    },
}
MESSAGE_EVENTS: list[Any] = [
    {"type": "message_start", "message": {**MESSAGE, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me see."}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"type": "x"}}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "content_block_stop", "index": 2},
    {"type": "of_the_future", "x": [1]},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": MESSAGE["usage"]},
    {"type": "message_stop"},
]

CONTENT: dict[str, Any] = {
    "candidates": [
        {
            "index": 0,
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"},
                    {"text": "Let me see."},
                    {"functionCall": {"id": "1", "name": "f", "args": {"city": "Riga"}}, "thoughtSignature": "c2ln"},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                    {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                ],
            },
            "finishReason": "STOP",
            "safetyRatings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "LOW"}],
        }
    ],
    "promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"},
    "usageMetadata": {
        "promptTokenCount": 7,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
        "toolUsePromptTokenCount": 1,
        "cachedContentTokenCount": 2,
        "totalTokenCount": 13,
    },
    "modelVersion": "m-1",
    "responseId": "r",
}

VECTORS: dict[str, Any] = {
    "object": "list",
    "model": "m-1",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}
CONTENT_VECTORS: dict[str, Any] = {
    "embedding": {"values": [0.5, -0.5]},
    "embeddings": [{"values": [0.5, -0.5]}],
    "usageMetadata": {"promptTokenCount": 2},
}

ERRORS: dict[str, Any] = {
    "OpenAI's": {"error": {"message": "No.", "type": "invalid_request_error", "param": "x", "code": "bad"}},
    "Anthropic's": {"type": "error", "error": {"type": "overloaded_error", "message": "No."}, "request_id": "r"},
    "Google's": {
        "error": {
            "code": 429,
            "message": "No.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "x", "reason": "API_KEY_INVALID"}, {"@type": "y", "retryDelay": "3.5s"}],
        }
    },
    "another server's": {"detail": {"message": "No.", "code": 503}},
    "of an event": {"type": "error", "code": "server_error", "message": "No.", "param": None, "sequence_number": 1},
}
