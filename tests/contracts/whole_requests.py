"""A body of each client dialect with everything in it that the gateway has words for, and more."""

from __future__ import annotations

from typing import Any

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = "JVBERi0xLjQK"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Order",
    "description": "An order.",
    "properties": {
        "city": {"type": "string", "format": "date", "minLength": 1, "enum": ["Riga", "Bern"], "default": "Riga"},
        "many": {"type": "array", "items": {"type": ["integer", "null"]}, "minItems": 1, "maxItems": 3},
        "either": {"anyOf": [{"type": "number", "minimum": 0}, {"$ref": "#/$defs/name"}]},
        "one": {"oneOf": [{"type": "boolean"}, {"const": "x"}]},
        "all": {"allOf": [{"type": "string", "pattern": "x"}]},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string"}},
}
GOOGLE_SCHEMA: dict[str, Any] = {
    "type": "OBJECT",
    "properties": {
        "city": {"type": "STRING", "format": "enum", "enum": ["Riga"], "nullable": True, "example": "Riga"},
        "many": {"type": "ARRAY", "items": {"type": "INTEGER", "format": "int32"}, "minItems": "1"},
        "either": {"anyOf": [{"type": "STRING"}, {"type": "NUMBER", "maximum": 3}]},
    },
    "required": ["city"],
    "propertyOrdering": ["city", "many"],
}

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "Be brief.", "name": "dev"},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
                {"type": "of_the_future", "of_the_future": {"a": [1]}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Let me see."}, {"type": "refusal", "refusal": "No."}],
            "refusal": None,
            "reasoning_content": "Hm.",
            "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln", "index": 0}],
            "audio": {"id": "audio_1"},
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"city":"Riga"}'},
                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                },
                {"id": "call_2", "type": "custom", "custom": {"name": "free", "input": "x"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "4 °C"}]},
        {"role": "tool", "tool_call_id": "call_2", "content": "done"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "5"},
        {"role": "user", "content": "And now?"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA, "strict": True}},
        {
            "type": "custom",
            "custom": {
                "name": "free",
                "description": "Free.",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}},
            },
        },
        {"type": "of_the_future", "x": []},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    },
    "functions": [{"name": "g", "parameters": {"type": "object"}}],
    "function_call": {"name": "g"},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "o", "schema": SCHEMA, "strict": True}},
    "max_tokens": 100,
    "max_completion_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "logit_bias": {"1": 2},
    "logprobs": True,
    "top_logprobs": 2,
    "n": 1,
    "seed": 5,
    "stop": ["a", "b"],
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "reasoning_effort": "low",
    "reasoning": {"effort": "low"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "modalities": ["text"],
    "audio": {"voice": "x", "format": "mp3"},
    "prediction": {"type": "content", "content": "x"},
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "store": True,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {"user_location": {"type": "approximate"}},
    "extra_body": {"google": {"thinking_config": {"include_thoughts": True}}},
    "of_the_future": {"a": [1]},
}
CHAT_WITH_MEDIA: dict[str, Any] = {
    "model": "m",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
                {"type": "file", "file": {"file_id": "file_1"}},
            ],
        }
    ],
}

RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "developer", "content": "Be kind."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
                {"type": "input_file", "file_url": "https://example.com/a.pdf"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
            "encrypted_content": "c2ln",
        },
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "phase": "commentary",
            "content": [
                {
                    "type": "output_text",
                    "text": "Let me see.",
                    "annotations": [{"type": "url_citation", "url": "https://example.com", "start_index": 0}],
                    "logprobs": [],
                },
                {"type": "refusal", "refusal": "No."},
            ],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "f",
            "namespace": "mcp__a",
            "arguments": '{"city":"Riga"}',
            "extra_content": {"google": {"thought_signature": "c2ln"}},
            "status": "completed",
        },
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "4 °C"}, {"type": "input_image", "file_id": "file_1"}],
        },
        {"type": "custom_tool_call", "call_id": "call_2", "name": "free", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "done"},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "additional_tools", "tools": [{"type": "function", "name": "late", "parameters": {}}]},
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "queries": ["x"]}},
        {"type": "of_the_future", "x": {"a": [1]}},
    ],
    "tools": [
        {"type": "function", "name": "f", "description": "F.", "parameters": SCHEMA, "strict": True},
        {"type": "custom", "name": "free", "format": {"type": "grammar", "syntax": "regex", "definition": "x"}},
        {
            "type": "namespace",
            "name": "mcp__a",
            "description": "A.",
            "tools": [{"type": "function", "name": "g", "parameters": {"type": "object"}}],
        },
        {"type": "web_search", "filters": {"allowed_domains": ["example.com"]}},
        {"type": "mcp", "server_label": "x", "server_url": "https://example.com"},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
    "text": {"format": {"type": "json_schema", "name": "o", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto", "generate_summary": "auto"},
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "conversation": None,
    "prompt": {"id": "pmpt_1", "version": "2", "variables": {"a": "b"}},
    "service_tier": "auto",
    "store": False,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "background": False,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_logprobs": 2,
    "truncation": "auto",
    "user": "u",
    "safety_identifier": "u",
    "prompt_cache_key": "k",
    "of_the_future": {"a": [1]},
}

MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 2000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?", "citations": []},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                    "title": "A",
                    "context": "B",
                    "citations": {"enabled": True},
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                {"type": "search_result", "source": "x", "title": "X", "content": [{"type": "text", "text": "x"}]},
                {"type": "of_the_future", "x": {"a": [1]}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "thinking", "thinking": "Hm.", "signature": "gateway:generate_content:c2ln"},
                {"type": "redacted_thinking", "data": "c2ln"},
                {"type": "text", "text": "Let me see.", "citations": [{"type": "char_location", "cited_text": "x"}]},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Riga"}, "caller": {"type": "d"}},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "x"}]},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "4 °C"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                        {"type": "tool_reference", "tool_name": "x"},
                    ],
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "x"},
            ],
        },
        {"role": "assistant", "content": "Begun:"},
    ],
    "tools": [
        {"name": "f", "description": "F.", "input_schema": SCHEMA, "strict": True, "cache_control": {"type": "x"}},
        {"type": "custom", "name": "g", "input_schema": {"type": "object"}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"type": "bash_20250124", "name": "bash"},
    ],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "output_format": {"type": "json_schema", "schema": SCHEMA},
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}],
    "container": {"skills": []},
    "fallbacks": [{"model": "x"}],
    "metadata": {"user_id": "u"},
    "service_tier": "auto",
    "stop_sequences": ["a"],
    "stream": True,
    "temperature": 0.5,
    "top_k": 5,
    "top_p": 0.96,
    "betas": ["x"],
    "of_the_future": {"a": [1]},
}

CONTENTS: dict[str, Any] = {
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "What is this?"},
                {"inlineData": {"mimeType": "image/png", "data": PIXEL, "displayName": "a"}},
                {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a.pdf"}},
                {"ofTheFuture": {"a": [1]}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"},
                {"text": "Let me see.", "thoughtSignature": "Z2F0ZXdheTptZXNzYWdlczp4"},
                {"functionCall": {"id": "1", "name": "f", "args": {"city": "Riga"}}, "thoughtSignature": "c2ln"},
                {"executableCode": {"language": "PYTHON", "code": "1"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "1",
                        "name": "f",
                        "response": {"output": "4 °C"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}],
                        "willContinue": False,
                        "scheduling": "WHEN_IDLE",
                    }
                }
            ],
        },
    ],
    "systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
    "tools": [
        {
            "functionDeclarations": [
                {"name": "f", "description": "F.", "parameters": GOOGLE_SCHEMA, "response": GOOGLE_SCHEMA},
                {"name": "g", "parametersJsonSchema": SCHEMA, "behavior": "BLOCKING"},
            ]
        },
        {"googleSearch": {"timeRangeFilter": {}}},
        {"codeExecution": {}},
    ],
    "toolConfig": {
        "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]},
        "retrievalConfig": {"languageCode": "en"},
    },
    "safetySettings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"}],
    "generationConfig": {
        "maxOutputTokens": 100,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 5,
        "candidateCount": 1,
        "seed": 5,
        "stopSequences": ["a"],
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.1,
        "responseMimeType": "application/json",
        "responseSchema": GOOGLE_SCHEMA,
        "responseLogprobs": True,
        "logprobs": 2,
        "responseModalities": ["TEXT"],
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024},
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
        "speechConfig": {"languageCode": "en"},
        "ofTheFuture": {"a": [1]},
    },
    "cachedContent": "cachedContents/x",
    "labels": {"a": "b"},
    "ofTheFuture": {"a": [1]},
}
CONTENTS_WITH_MEDIA: dict[str, Any] = {
    "contents": {
        "parts": [
            {"inline_data": {"mime_type": "audio/wav", "data": "UklGRg=="}},
            {"videoMetadata": {"fps": 1}, "fileData": {"fileUri": "https://youtu.be/x"}},
        ]
    },
}
CONTENTS_BY_JSON_SCHEMA: dict[str, Any] = {
    "contents": [{"parts": [{"text": "x"}]}],
    "tools": [{"function_declarations": [{"name": "f", "parameters_json_schema": SCHEMA}]}],
    "tool_config": {"function_calling_config": {"mode": "auto", "allowed_function_names": ["f"]}},
    "generation_config": {
        "max_output_tokens": 5,
        "response_mime_type": "application/json",
        "responseJsonSchema": SCHEMA,
        "thinking_config": {"thinking_level": "LOW", "include_thoughts": False},
    },
    "system_instruction": "Be brief.",
}
COUNT: dict[str, Any] = {
    "contents": [{"parts": [{"text": "x"}]}],
    "generateContentRequest": {
        "model": "models/m",
        "contents": [{"parts": [{"text": "x"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
    },
}

VECTORS: dict[str, Any] = {
    "model": "m",
    "input": ["hello", "there"],
    "encoding_format": "float",
    "dimensions": 8,
    "user": "u",
    "of_the_future": {"a": [1]},
}
VECTORS_OF_TOKENS: dict[str, Any] = {"model": "m", "input": [[1, 2], [3]]}
EMBED: dict[str, Any] = {
    "model": "models/m",
    "content": {"role": "user", "parts": [{"text": "hello"}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}}]},
    "taskType": "RETRIEVAL_DOCUMENT",
    "title": "A",
    "outputDimensionality": 8,
    "embedContentConfig": {"taskType": "RETRIEVAL_QUERY", "autoTruncate": True},
}
EMBED_BATCH: dict[str, Any] = {"requests": [EMBED, {"content": {"parts": [{"text": "x"}]}}]}
