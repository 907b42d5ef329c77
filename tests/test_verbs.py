"""Every verb, the same in process and over the wire."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeBackend, fake_stage
from served import MARTA, served

from npc_runtime import Client, Piece, Reply, Runtime, errors
from npc_runtime.config import Config
from npc_runtime.verbs import Blocking, Opening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = Config(pace_tokens_per_s=0)


@pytest.fixture(params=["runtime", "client"])
def game(request: pytest.FixtureRequest) -> Iterator[Blocking]:
    if request.param == "runtime":
        with Runtime(open_stage=lambda: fake_stage(CONFIG)) as runtime:
            yield runtime
        return
    with served(CONFIG) as daemon, Client.connect(daemon.endpoint, daemon.key, "castle") as client:
        yield client


@pytest.fixture
def marta(game: Blocking) -> Blocking:
    game.spawn("marta", MARTA, seed=7)
    return game


def test_spawn_tells_who_came(game: Blocking) -> None:
    first = game.spawn("marta", MARTA, seed=7)
    assert (first.npc, first.name, first.role, first.seed) == ("marta", "Marta", "innkeeper", 7)
    assert first.opening == Opening("Come in!", "neutral")
    assert not first.cached
    assert first.tokens["read"] > 0
    second = game.spawn("twin", MARTA)
    assert second.cached
    assert second.tokens["read"] == 0
    assert second.seed != 7
    assert game.spawn("mute", {"name": "Mute", "role": "guard"}).opening is None


def test_a_persona_may_be_a_path_of_any_kind(game: Blocking, tmp_path: Path) -> None:
    file = tmp_path / "perrin.toml"
    file.write_text('name = "Perrin Auld"\nrole = "ferryman"\n', "utf-8")
    assert game.spawn("perrin", file).name == game.spawn("twin", str(file)).name == "Perrin Auld"


def test_say_gives_a_reply_and_is_repeatable(marta: Blocking) -> None:
    marta.fork("marta", "twin")
    reply = marta.say("marta", "Good evening!")
    assert isinstance(reply, Reply)
    assert reply.mood in ("neutral", "happy", "amused", "fond", "sad", "angry", "afraid", "surprised", "wary", "proud")
    assert (reply.npc, reply.finish, reply.seed, reply.turn) == ("marta", "end", 7, 0)
    assert reply.text.strip()
    assert reply.tokens["read"] == len("Good evening!") + 1
    assert marta.say("twin", "Good evening!").text == reply.text
    assert marta.say("twin", "Good evening!").text != reply.text, "it remembers having been asked"


def test_say_obeys_its_options(marta: Blocking) -> None:
    reply = marta.say("marta", "Boo!", kind="event", moods=["afraid"], actions=["flee"], max_tokens=3, temperature=0)
    assert reply.mood == "afraid"
    assert reply.action in (None, "flee")
    assert reply.tokens["spoken"] <= 3 + len("afraid") + len("flee") + 2


def test_a_stream_gives_pieces_and_ends_with_the_reply(marta: Blocking) -> None:
    stream = marta.stream("marta", "Good evening!", actions=["give"])
    pieces = list(stream)
    assert pieces[0].mood == stream.reply.mood
    assert next((piece.action for piece in pieces if piece.action), None) == stream.reply.action
    assert "".join(piece.text for piece in pieces) == stream.reply.text
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert list(stream) == pieces, "it may be read again"
    assert stream.pieces == tuple(pieces), "or without waiting"
    assert stream.done


def test_observe_reaches_a_crowd(marta: Blocking) -> None:
    marta.fork("marta", "twin")
    seen = marta.observe(["marta", "twin"], "The bells ring.")
    assert (sorted(seen.npcs), seen.failed, seen.tokens) == (["marta", "twin"], {}, {"read": 16})
    assert marta.observe("marta", "Silence.").npcs == ("marta",)
    assert [npc.turns for npc in marta.list()] == [2, 1]


def test_choose_takes_one_of_the_lines(marta: Blocking) -> None:
    chosen = marta.choose("marta", ["yes", "no", "perhaps not today"], "Is there a room?", moods=["happy"])
    assert chosen.text == ("yes", "no", "perhaps not today")[chosen.index]
    assert chosen.mood == "happy"
    assert len(chosen.scores) == 3
    assert chosen.scores[chosen.index] == max(chosen.scores)


def test_snapshot_and_restore_bring_the_mind_back(marta: Blocking) -> None:
    marta.say("marta", "I am Tolliver.")
    data = marta.snapshot("marta")
    reply = marta.say("marta", "Who am I?")
    info = marta.restore("copy", data)
    assert (info.npc, info.turns, info.rebuilt) == ("copy", 1, False)
    assert marta.say("copy", "Who am I?").text == reply.text


def test_rewind_takes_turns_back(marta: Blocking) -> None:
    replies = [marta.say("marta", line) for line in ("one", "two", "three")]
    info = marta.rewind("marta", 2)
    assert (info.turns, info.rewind) == (1, 1)
    assert marta.say("marta", "two").text == replies[1].text
    with pytest.raises(errors.NothingToRewind):
        marta.rewind("marta", 9)


def test_save_and_load_bring_everyone_back(marta: Blocking, tmp_path: Path) -> None:
    marta.fork("marta", "twin")
    marta.say("marta", "I am Tolliver.")
    saved = marta.save(tmp_path / "one.npcsave")
    assert saved.path == str(tmp_path / "one.npcsave")
    assert saved.npcs == ("marta", "twin")
    assert saved.bytes == (tmp_path / "one.npcsave").stat().st_size
    reply = marta.say("marta", "Who am I?")
    loaded = marta.load(tmp_path / "one.npcsave", ["marta"], replace=True)
    assert [npc.npc for npc in loaded.npcs] == ["marta"]
    assert loaded.rebuilt == ()
    assert marta.say("marta", "Who am I?").text == reply.text


def test_a_path_that_no_disk_takes_is_the_callers_error_alone(marta: Blocking, tmp_path: Path) -> None:
    speaking = marta.stream("marta", "Tell me all.")
    with pytest.raises(errors.SaveFailed, match="File name too long") as caught:
        marta.save(tmp_path / f"{'x' * 300}.npcsave")
    assert caught.value.hint == "Choose a shorter name"
    with pytest.raises(errors.SaveError, match="File name too long"):
        marta.load(tmp_path / f"{'x' * 300}.npcsave")
    for verb in (marta.save, marta.load):
        with pytest.raises(errors.BadInput, match=r"null character, got '.*a\\x00b\.npcsave'"):
            verb("/a\0b.npcsave")
    assert speaking.reply.finish == "end"


def test_relative_paths_mean_our_own_folder(marta: Blocking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert marta.save("one.npcsave").path == str(tmp_path / "one.npcsave")


def test_cancel_and_drop(marta: Blocking) -> None:
    assert marta.cancel("marta") == 0
    marta.drop("marta")
    assert marta.list() == ()
    with pytest.raises(errors.UnknownNpc, match="marta"):
        marta.drop("marta")


def test_stats_count(marta: Blocking) -> None:
    marta.say("marta", "Good evening!")
    stats = marta.stats()
    assert stats["npcs"] == 1
    assert stats["turns"]["done"] >= 1
    assert stats["turns"]["failed"] == 0
    assert stats["tokens"]["spoken"] > 0


def test_errors_are_the_typed_classes(marta: Blocking) -> None:
    with pytest.raises(errors.NpcExists) as caught:
        marta.spawn("marta", MARTA)
    assert caught.value.hint == errors.NpcExists.hint
    with pytest.raises(errors.UnknownPersona):
        marta.spawn("x", "no-such-persona")
    with pytest.raises(errors.PersonaError):
        marta.spawn("x", {"name": "X"})
    with pytest.raises(errors.SaveError):
        marta.restore("x", b"nonsense")
    with pytest.raises(errors.BadInput, match="`npc` must be text"):
        marta.say(5, "hello")  # type: ignore[arg-type]
    with pytest.raises((errors.BadInput, errors.PersonaError)):
        marta.spawn("x", {"name": object()})
    with pytest.raises(errors.UnknownNpc):
        list(marta.stream("nobody", "hello"))


@pytest.mark.parametrize(
    ("verb", "given", "options", "word"),
    [
        ("say", ("marta", "Hi"), {"moods": "angry"}, "`moods` must be a list of texts, got 'angry'"),
        ("say", ("marta", "Hi"), {"actions": "give"}, "`actions` must be a list of texts"),
        ("say", ("marta", None), {}, "`text` must be text"),
        ("say", (b"marta", "Hi"), {}, "`npc` must be text"),
        ("choose", ("marta", "Yes."), {}, "`lines` must be a list of texts"),
        ("choose", ("marta", None), {}, "`lines` must be a list of texts"),
        ("choose", ("marta", ["Yes."]), {"moods": "angry"}, "`moods` must be a list of texts"),
        ("observe", (None, "Bells."), {}, "`npcs` must be a list of texts"),
        ("observe", (5, "Bells."), {}, "`npcs` must be a list of texts"),
        ("spawn", ("a", None), {}, "`persona` must be text or a map"),
        ("spawn", ("a", 5), {}, "`persona` must be text or a map"),
        ("say", ("marta", "Hi"), {"seed": -1}, "`seed` must be from 0 to 9007199254740991, got -1"),
        ("say", ("marta", "Hi"), {"deadline_ms": -1}, "`deadline_ms` must be from 0 to 3600000, got -1"),
        ("save", (None,), {}, "`path` must be text"),
        ("save", (b"a.npcsave",), {}, "`path` must be text"),
        ("save", ("a.npcsave", "marta"), {}, "`npcs` must be a list of texts"),
        ("load", (5,), {}, "`path` must be text"),
    ],
)
def test_what_is_of_the_wrong_type_is_refused(
    marta: Blocking, verb: str, given: tuple[Any, ...], options: dict[str, Any], word: str
) -> None:
    with pytest.raises(errors.BadInput, match=word):
        getattr(marta, verb)(*given, **options)


def test_verbs_can_be_awaited(marta: Blocking) -> None:
    async def play() -> tuple[list[Piece], Reply, list[Any]]:
        stream = marta.aio.stream("marta", "Good evening!")
        pieces = [piece async for piece in stream]
        rest = await asyncio.gather(*(marta.aio.say("marta", f"line {i}") for i in range(5)))
        with pytest.raises(errors.UnknownNpc):
            await marta.aio.say("nobody", "hello")
        with pytest.raises(errors.UnknownNpc):
            async for _ in marta.aio.stream("nobody", "hello"):
                pass
        return pieces, await stream, rest

    pieces, reply, rest = asyncio.run(play())
    assert "".join(piece.text for piece in pieces) == reply.text
    assert [later.turn for later in rest] == [1, 2, 3, 4, 5]


def test_any_thread_may_speak(marta: Blocking) -> None:
    replies: dict[str, list[Reply]] = {}

    def play(name: str) -> None:
        marta.fork("marta", name)
        replies[name] = [marta.say(name, line) for line in ("one", "two", "three")]

    threads = [threading.Thread(target=play, args=(f"twin-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = {tuple(reply.text for reply in told) for told in replies.values()}
    assert len(replies) == 8
    assert len(texts) == 1, "what others do meanwhile changes nothing"


def test_a_wait_may_be_bounded_and_the_answer_still_comes() -> None:
    with Runtime(open_stage=lambda: fake_stage(CONFIG, FakeBackend(slots=256, end_bias=-60))) as game:
        game.spawn("marta", MARTA)
        stream = game.stream("marta", "Tell me all.", pace=2)
        with pytest.raises(TimeoutError, match="still open"):
            stream.result(0.01)
        stream.timeout_s = 0.01
        with pytest.raises(TimeoutError, match="nothing came"):
            list(stream)
        game.cancel("marta")
        assert stream.reply.finish == "cancelled"
