"""Reading scenes, dialogues and prose; splits; rendering with loss on the character's tokens only."""

from __future__ import annotations

import json
import random
import sys
from typing import TYPE_CHECKING

import pytest

from npc_runtime.persona import Persona
from npc_runtime.prompt import ControlLayout, Head
from npc_runtime.tokenizer import CONTROL, SentencePieceTokenizer
from npc_runtime.training.corpus import (
    CorpusError,
    Line,
    Scene,
    held_out,
    read_dialogues,
    read_prose,
    read_scenes,
    read_talk,
    split_scenes,
)
from npc_runtime.training.prepare import prepare
from npc_runtime.training.render import ONE, Renderer
from npc_runtime.training.shards import make_shard, read_shard, write_shard
from npc_runtime.training.tokenizer import sample_lines, train_tokenizer
from npc_runtime.training.vary import Renamer, rename

if TYPE_CHECKING:
    from pathlib import Path

TALK = """## marta-helmet
setting: a harbour town
name: Marta Venn
role: blacksmith
traits: gruff, loyal
knows: her brother Tam died; she owes forty crowns
wants: to be rid of the Guild
---
P: Do you have any swords? I'm Orrel.
N[wary]: I have nails, Orrel, and hinges.
E: The player lays a helmet on the counter.
N[amused,take]: Leave it here till morning.
"""


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    lines = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 9))) + " word 12" for _ in range(400)]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(lines, path, vocab_size=320, threads=1)
    return path


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(tokenizer_path)


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_scene_is_read_with_header_moods_and_actions(tmp_path: Path) -> None:
    [scene] = read_talk(write(tmp_path / "a.talk", TALK))
    assert scene.persona.name == "Marta Venn"
    assert scene.persona.traits == ("gruff", "loyal")
    assert scene.persona.knows == ("her brother Tam died", "she owes forty crowns")
    assert [line.who for line in scene.lines] == ["player", "npc", "event", "npc"]
    assert (scene.lines[3].mood, scene.lines[3].action) == ("amused", "take")
    assert scene.typed


@pytest.mark.parametrize(
    ("bad", "line", "expected"),
    [
        ("N[grumpy]: no", 13, "mood must be one of neutral"),
        ("N[wary,dance]: no", 13, "action must be one of trade"),
        ("X: no", 13, "expected `P:`"),
        ("P:", 13, "expected `P: text`"),
    ],
)
def test_a_malformed_turn_names_file_line_and_what_was_expected(
    tmp_path: Path, bad: str, line: int, expected: str
) -> None:
    path = write(tmp_path / "bad.talk", TALK + bad + "\n")
    with pytest.raises(CorpusError, match=f"bad.talk` line {line}: .*{expected}"):
        read_talk(path)


def test_malformed_headers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"line 2: expected a header line .* got `age: 40`"):
        read_talk(write(tmp_path / "a.talk", "## x\nage: 40\n"))
    with pytest.raises(CorpusError, match=r"lacks `role`"):
        read_talk(write(tmp_path / "b.talk", "## x\nname: A\n---\nN[wary]: hm\n"))
    with pytest.raises(CorpusError, match="expected `## scene-name`"):
        read_talk(write(tmp_path / "c.talk", "P: hello\n"))
    with pytest.raises(CorpusError, match="holds no scenes"):
        read_scenes(tmp_path / "nowhere")


def test_dialogues_and_prose_are_read_packed_or_plain(tmp_path: Path) -> None:
    import zstandard

    turn = {"source": "s", "persona": {"role": "guard"}, "turns": [{"who": "npc", "text": "Halt.", "mood": "odd"}]}
    packed = zstandard.ZstdCompressor().compress(json.dumps(turn).encode())
    (tmp_path / "d.jsonl.zst").write_bytes(packed)
    [scene] = read_dialogues(tmp_path / "d.jsonl.zst")
    assert scene.lines == (Line("npc", "Halt.", None),)
    assert not scene.typed
    assert list(read_prose(write(tmp_path / "p.txt", "One.\n\nMore.\n\f\nTwo.\n"))) == ["One.\n\nMore.", "Two."]


def test_bad_dialogues_name_file_and_line(tmp_path: Path) -> None:
    for bad in (
        '{"source": "s", "turns": [{"who": "dog"}]}',
        '{"source": "s", "turns": ["hello"]}',
        '{"source": "s", "turns": [], "persona": "a guard"}',
        "[]",
        "[" * 20_000,  # deeper than Python's stack
        '{"source": "s", "turns": [{"who": ' + "[" * 300 + "]" * 300 + "}]}",
    ):
        path = write(tmp_path / "d.jsonl", '{"source": "s", "turns": []}\n' + bad)
        with pytest.raises(CorpusError, match=r"d.jsonl` line 2: expected a conversation") as caught:
            list(read_dialogues(path))
        assert len(caught.value.text) < 1000
    (tmp_path / "x.txt.zst").write_bytes(b"not packed")
    with pytest.raises(CorpusError, match="not zstd"):
        list(read_prose(tmp_path / "x.txt.zst"))


def test_a_packed_file_without_zstandard_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.txt.zst").write_bytes(b"packed")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(CorpusError, match="needs `zstandard`") as caught:
        list(read_prose(tmp_path / "p.txt.zst"))
    assert caught.value.hint.startswith("pip install '.[train]'")


def test_the_split_never_parts_a_character() -> None:
    scenes = [Scene(Persona(f"name {i % 60}", "r"), (Line("npc", str(i), "wary"),), "s") for i in range(240)]
    seen, unseen = split_scenes(scenes, 5)
    assert len(seen) + len(unseen) == 240
    assert unseen
    assert {s.persona.name for s in seen}.isdisjoint({s.persona.name for s in unseen})
    assert all(held_out(s.persona.name, 5) for s in unseen)


def test_the_tokenizer_has_control_symbols_newline_and_exact_round_trips(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.vocab_size == 320
    assert [tokenizer.control(symbol) for symbol in CONTROL] == list(range(1, 8))
    for text in ("a  b ", "one\ntwo\n\n", "<npc> <end>", "naïve ☃ 12", " lead"):
        ids = tokenizer.encode(text)
        assert not tokenizer.special & set(ids)
        assert tokenizer.decode(ids) == text


def test_only_what_the_character_says_is_learned(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    [scene] = read_talk(write(tmp_path / "a.talk", TALK))
    document = Renderer(tokenizer).scene(scene)
    layout = ControlLayout(tokenizer)
    expected: list[int] = []
    for line in scene.lines:
        if line.who == "npc":
            expected += [*layout.head(Head(line.mood or "", line.action)), *layout.speech(line.text), *layout.end]
    learned = document.tokens[document.weights > 0].tolist()
    assert learned == expected
    cue = layout.cue(scene.persona)[0]
    assert not document.weights[document.tokens == cue].any()


def test_a_mood_that_is_not_told_is_not_learned(tokenizer: SentencePieceTokenizer) -> None:
    renderer = Renderer(tokenizer)
    document = renderer.conversation(Persona("A", "b"), [Line("npc", "hm", None)], typed=False)
    speech = [*renderer.layout.speech("hm"), *renderer.layout.end]
    assert document.tokens[document.weights > 0].tolist() == speech
    assert set(document.weights[document.weights > 0].tolist()) == {ONE}


def test_shards_keep_documents(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    renderer = Renderer(tokenizer)
    documents = [renderer.prose("one word"), renderer.prose("another word here", 0.5)]
    shard = read_shard(write_shard(make_shard("prose-x", documents), tmp_path))
    assert len(shard) == 2
    assert shard.document(1).tokens.tolist() == documents[1].tokens.tolist()
    assert set(shard.document(1).weights.tolist()) == {ONE // 2}
    assert len(shard.excerpt(random.Random(1), 3)) == 3
    path = tmp_path / "prose-x.shard"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match="is not a shard"):
        read_shard(path)


def test_a_corpus_is_packed_with_shares_left_out(tokenizer_path: Path, tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    for part in ("scenes", "cards"):
        (corpus / part).mkdir(parents=True)
    write(corpus / "scenes" / "a.talk", TALK)
    turn = {"source": "s", "persona": {}, "turns": [{"who": "npc", "text": "hm"}]}
    for name in ("dialogues-light", "dialogues-crd3"):
        write(corpus / f"{name}.jsonl", json.dumps(turn))
    write(corpus / "prose-tales.txt", "once")
    out.mkdir()
    (out / "tokenizer.model").write_bytes(tokenizer_path.read_bytes())
    told = list(prepare(corpus, out))
    assert [line.split(",")[0] for line in told] == [
        "0 facts read out of prose",
        "dialogues-crd3 left out",
        "dialogues-light: 1 documents",
        "prose-tales: 1 documents",
    ]
    assert read_scenes(out / "scenes") == read_scenes(corpus / "scenes")
    assert len(read_shard(out / "dialogues-light.shard")) == 1


def test_a_corpus_without_scenes_or_cards_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CorpusError, match="scenes` holds no scenes"):
        list(prepare(tmp_path, out))
    (tmp_path / "scenes").mkdir()
    write(tmp_path / "scenes" / "a.talk", TALK)
    with pytest.raises(CorpusError, match="cards` is not a folder of cards"):
        list(prepare(tmp_path, out))
    assert not out.exists()


GOOD = '{"source": "s", "persona": {}, "turns": [{"who": "npc", "text": "hm hm"}]}\n'


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("dialogues-a.jsonl", (GOOD + "{").encode(), r"dialogues-a.jsonl` line 2: expected a conversation"),
        (
            "dialogues-a.jsonl",
            GOOD.encode() * 2 + b"\xff\n",
            "dialogues-a.jsonl` line 3: expected UTF-8 text, got byte 0xff",
        ),
        ("prose-a.txt", b"once\nupon\na t\xe9me", "prose-a.txt` line 3: expected UTF-8 text, got byte 0xe9"),
        ("prose-a.txt.zst", b"not packed", "prose-a.txt.zst` cannot be read as text: not zstd"),
        ("prose-a.txt", b"too little for so many pieces", "no tokenizer of 8192 pieces can be made of this text"),
        ("cards/player-a.jsonl", b"{}\n\xff", "player-a.jsonl` line 2: expected UTF-8 text"),
    ],
    ids=["cut off", "dialogue not UTF-8", "prose not UTF-8", "not packed", "too little", "card not UTF-8"],
)
def test_a_malformed_file_is_named_and_nothing_is_written(
    tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    """SentencePiece made a RuntimeError of it and left an empty tokenizer.model, which the next run took."""
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    for part in ("scenes", "cards"):
        (corpus / part).mkdir(parents=True)
    write(corpus / "scenes" / "a.talk", TALK)
    (corpus / name).write_bytes(data)
    with pytest.raises(CorpusError, match=expected):
        list(prepare(corpus, out))
    assert not out.exists()


def test_the_tokenizer_learns_from_plain_and_packed_files(tmp_path: Path) -> None:
    """It once learned from packed ones alone, though both are packed for training."""
    import zstandard

    for part in ("scenes", "cards"):
        (tmp_path / part).mkdir()
    write(tmp_path / "scenes" / "a.talk", TALK)
    write(tmp_path / "dialogues-a.jsonl", GOOD)
    write(tmp_path / "dialogues-crd3.jsonl", GOOD.replace("hm hm", "left out"))
    (tmp_path / "prose-b.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(b"once\nupon"))
    lines = set(sample_lines(tmp_path, prose_share=1.0))
    assert {"neutral", "trade", "hm hm", "once", "upon"} <= lines
    assert "left out" not in lines


def test_names_change_everywhere_at_once(tmp_path: Path) -> None:
    [scene] = read_talk(write(tmp_path / "a.talk", TALK))
    renamer = Renamer([scene])
    assert {"Marta", "Venn", "Orrel", "Tam"} <= set(renamer.names(scene))
    assert renamer.told_names(scene)
    changed = rename(scene, {"Orrel": "Dask", "Marta": "Ilse"})
    assert changed.persona.name == "Ilse Venn"
    assert changed.lines[0].text.endswith("I'm Dask.")
    assert "Dask" in changed.lines[1].text
    varied = renamer.vary(scene, random.Random(1), 1.0)
    assert "Orrel" not in varied.lines[0].text
    new = varied.lines[0].text.removesuffix(".").split()[-1]
    assert new in varied.lines[1].text


def test_names_of_a_script_s_world_stay() -> None:
    scenes = [
        Scene(Persona(name, "cook", setting="near Stenfall"), (Line("npc", f"In Stenfall I met {name}."),), "s")
        for name in ("Brannock", "Oswin")
    ]
    shared = Renamer(scenes).shared(scenes)
    assert shared == {"Stenfall"}
    varied = Renamer(scenes, shared).vary(scenes[0], random.Random(1), 1.0)
    assert "Stenfall" in varied.lines[0].text
    assert "Brannock" not in varied.lines[0].text
