"""A hand-made file of every format, small enough to check in the head, and the sessions that it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass

from traces import Call, Pause, Session


def lines(*objects: object) -> str:
    return "".join(json.dumps(one) + "\n" for one in objects)


@dataclass(frozen=True)
class Example:
    """A file and what it must be read as."""

    format: str
    text: str
    sessions: list[Session]
    tokenizer: str | None = None


OWN = Example(
    "own",
    lines({"id": "a", "arrival": 0.5, "prompt": 90, "calls": [{"output": 10}]}),
    [Session("a", 0.5, 90, (Call(10),))],
)

SESSION_FILES = Example(
    "session-files",
    lines({"id": "a", "kind": "math", "calls": [{"prompt": 9, "output": 1, "pause_s": 2.0, "returned": 3}]}),
    [Session("a", 0.0, 9, (Call(1, Pause(2.0, 3)),), "math")],
)

# The third row continues "s" with a whole prompt: its hashes begin as before. 600 + 10 = 610 tokens of context,
# 700 - 610 = 90 are new. The fourth has no hashes: its 20 tokens are appended.
MOONCAKE = Example(
    "mooncake",
    lines(
        {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]},
        {"timestamp": 1500, "session_id": "s", "input_length": 600, "output_length": 10, "hash_ids": [1, 9]},
        {"session_id": "s", "delay": 250, "input_length": 700, "output_length": 7, "hash_ids": [1, 9]},
        {"session_id": "s", "delay": 2000, "input_length": 20, "output_length": 1},
    ),
    [
        Session("mooncake-1", 0.0, 600, (Call(5),), block_hashes=(1, 2), hash_block=512),
        Session(
            "s",
            1.5,
            600,
            (Call(10, Pause(0.25, 90)), Call(7, Pause(2.0, 20)), Call(1)),
            block_hashes=(1, 9),
            hash_block=512,
        ),
    ],
)

# Blocks of 4 tokens (8 tokens, 2 hashes). Tool time and delay make 0.5 s. In the last row only the first block is
# left of the context: 4 tokens stay, 6 - 4 = 2 are new.
AGENTIC = Example(
    "agentic-mooncake",
    lines(
        {"request_id": "r1", "session_id": "s", "input_length": 8, "output_length": 2, "hash_ids": [1, 2]},
        {
            "request_id": "r2",
            "session_id": "s",
            "input_length": 12,
            "output_length": 3,
            "hash_ids": [1, 2, 3],
            "wait_for": ["r1"],
            "delay": 100,
            "tool_wait_ms": 400,
            "tool_events": [{"tool_class": "bash", "duration_ms": 400}, {"tool_class": "read", "duration_ms": 5}],
        },
        {
            "request_id": "r3",
            "session_id": "s",
            "input_length": 6,
            "output_length": 1,
            "hash_ids": [1, 7],
            "wait_for": ["r2"],
            "delay": 0,
        },
    ),
    [
        Session(
            "s",
            0.0,
            8,
            (Call(2, Pause(0.5, 2, tool="bash")), Call(3, Pause(0.0, 2, keeps=4)), Call(1)),
            block_hashes=(1, 2),
            hash_block=4,
        )
    ],
)

AGENTIC_2 = Example(
    "agentic-mooncake",
    lines(
        {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64, "hash_id_scope": "local"},
        {
            "request_id": "r1",
            "play_id": "p",
            "session_id": "s",
            "input_length": 64,
            "output_length": 2,
            "hash_ids": [1],
        },
        {
            "request_id": "r2",
            "play_id": "p",
            "session_id": "s",
            "input_length": 70,
            "output_length": 2,
            "hash_ids": [1, 2],
            "dependencies": [{"request_id": "r1", "relation": "sequence", "trigger": "completion", "delay_ms": 5.0}],
        },
    ),
    [Session("p s", 0.0, 64, (Call(2, Pause(0.005, 4)), Call(2)))],
)

AZURE = Example(
    "azure",
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n",
    [Session("azure-2", 0.0, 374, (Call(44),)), Session("azure-3", 4.314579, 396, (Call(109),))],
)

BURSTGPT = Example(
    "burstgpt",
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,0,1087,API log\n118,GPT-4,417,276,693,API log\n",
    [
        Session("burstgpt-2", 0.0, 472, (Call(18),), "Conversation log"),
        Session("burstgpt-4", 113.0, 417, (Call(276),), "API log"),
    ],
)

# The second turn of "s" begins at 60 s; the response before took until 10 + 8 = 18 s: 42 s of pause. Its prompt of 150
# tokens continues the context of 100 + 20.
BURSTGPT_3 = Example(
    "burstgpt",
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "10.0,s,8,GPT-4,100,20,120,Conversation log\n30.0,,2,ChatGPT,36,29,65,API log\n"
    "60.0,s,8,GPT-4,150,5,155,Conversation log\n",
    [
        Session("burstgpt-3", 20.0, 36, (Call(29),), "API log"),
        Session("s", 0.0, 100, (Call(20, Pause(42.0, 30, "user")), Call(5)), "Conversation log"),
    ],
)

VIDUR = Example(
    "vidur",
    "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n",
    [Session("vidur-2", 0.0, 374, (Call(44),)), Session("vidur-3", 4.314579, 396, (Call(109),))],
)

# 130 + 6 = 136 tokens of context; the tool's answer comes at 3 + 2 = 5 s, the next request at 6 s. Its hashes share
# both whole blocks: 200 - 136 = 64 tokens are new. The person's turn keeps one block of 64 and brings 70 - 64.
WEKA = Example(
    "weka",
    json.dumps(
        {
            "id": "w",
            "block_size": 64,
            "hash_id_scope": "local",
            "requests": [
                {"t": 3.0, "type": "s", "in": 130, "out": 6, "hash_ids": [1, 2, 3], "api_time": 2.0},
                {"type": "subagent", "agent_id": "x", "t": 5.0, "requests": [{"t": 5.0, "in": 10, "out": 2}]},
                {"t": 6.0, "in": 200, "out": 8, "hash_ids": [1, 2, 7, 8], "input_types": ["tool_result"]},
                {"t": 96.0, "in": 70, "out": 1, "hash_ids": [1, 5], "input_types": ["text"]},
            ],
        },
        indent=1,
    ),
    [
        Session("w", 0.0, 130, (Call(6, Pause(1.0, 64)), Call(8, Pause(90.0, 6, "user", keeps=64)), Call(1))),
        Session("w/x", 5.0, 10, (Call(2),)),
    ],
)

LLMSERVINGSIM = Example(
    "llmservingsim",
    lines(
        {
            "session_id": "s",
            "arrival_time_ns": 1_500_000_000,
            "sub_requests": [
                {"input_toks": 100, "output_toks": 1, "tool_duration_ns": 2_000_000_000},
                {"input_toks": 108, "output_toks": 4, "tool_duration_ns": 9},
            ],
        },
        {"input_toks": 7, "output_toks": 3, "arrival_time_ns": 2_000_000_000},
    ),
    [
        Session("s", 1.5, 100, (Call(1, Pause(2.0, 7)), Call(4))),
        Session("llmservingsim-2", 2.0, 7, (Call(3),)),
    ],
)

APPLIED_COMPUTE = Example(
    "applied-compute",
    lines(
        {
            "num_turns": 2,
            "input_prompt_length": 32,
            "assistant_response_length": [16, 20],
            "tool_call_output_length": [8, 12],
            "tool_call_latency": [0.5, 0.0],
            "final_assistant_response_length": 64,
        }
    ),
    [Session("applied-compute-1", 0.0, 32, (Call(16, Pause(0.5, 8)), Call(20, Pause(0.0, 12)), Call(64)))],
)

AIPERF = Example(
    "aiperf",
    lines(
        {
            "session_id": "s",
            "turns": [
                {"text": "one two three", "timestamp": 1000},
                {"role": "assistant", "text": "four five"},
                {"texts": ["six", "seven"], "delay": 500},
            ],
        }
    ),
    [Session("s", 1.0, 3, (Call(2, Pause(0.5, 2, "user")), Call(1)))],
    "words",
)

SHAREGPT = Example(
    "sharegpt",
    json.dumps(
        [
            {
                "id": "x",
                "conversations": [
                    {"from": "human", "value": "what is it"},
                    {"from": "gpt", "value": "a test"},
                    {"from": "human", "value": "thanks"},
                    {"from": "gpt", "value": "fine"},
                ],
            },
            {"id": "y", "conversations": [{"from": "human", "value": "nobody answers"}]},
        ],
        indent=2,
    ),
    [Session("x", 0.0, 3, (Call(2, Pause(0.0, 1, "user")), Call(1)))],
    "words",
)

OPENAI_USAGE = Example(
    "openai-chat",
    lines(
        {"id": "c1", "created": 1700000000, "usage": {"prompt_tokens": 12, "completion_tokens": 3}},
        {
            "custom_id": "c2",
            "response": {"body": {"created": 1700000004, "usage": {"prompt_tokens": 5, "completion_tokens": 1}}},
        },
    ),
    [Session("c1", 0.0, 12, (Call(3),)), Session("c2", 4.0, 5, (Call(1),))],
)

EXAMPLES: tuple[Example, ...] = (
    OWN,
    SESSION_FILES,
    MOONCAKE,
    AGENTIC,
    AGENTIC_2,
    AZURE,
    BURSTGPT,
    BURSTGPT_3,
    VIDUR,
    WEKA,
    LLMSERVINGSIM,
    APPLIED_COMPUTE,
    AIPERF,
    SHAREGPT,
    OPENAI_USAGE,
)
