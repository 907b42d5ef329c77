"""Evaluation: the scores, and that a model which repeats what it heard scores what it should."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from npc_runtime.backends.reference import ReferenceBackend, ReferenceModel
from npc_runtime.evaluation.cast import cast_questions, told
from npc_runtime.evaluation.company import faults, scripts, simulate
from npc_runtime.evaluation.heads import heads
from npc_runtime.evaluation.perplexity import perplexity
from npc_runtime.evaluation.persona import persona_questions, secrets_kept, whole_headers
from npc_runtime.evaluation.play import played, turns
from npc_runtime.evaluation.recall import Share, abstention, holds, ignorant, recall
from npc_runtime.evaluation.report import Exam, Sheet, Size, evaluate
from npc_runtime.evaluation.rows import GREEDY, BackendRows
from npc_runtime.evaluation.talk import Spoken, Talker
from npc_runtime.evaluation.torch_rows import TorchRows
from npc_runtime.evaluation.trigram import Trigram
from npc_runtime.model.config import ModelConfig
from npc_runtime.model.mamba import Mamba
from npc_runtime.persona import MOODS, Persona
from npc_runtime.prompt import Head
from npc_runtime.sampling import Draw, Sampling
from npc_runtime.training.batches import GRAMMARS
from npc_runtime.training.cards import Cards, PersonaCard, PlayerCard, SmalltalkCard, phrasings
from npc_runtime.training.corpus import Line, Scene
from npc_runtime.training.drills import Drills
from npc_runtime.training.export import dense_tensors
from npc_runtime.training.known import Known, Spot
from npc_runtime.training.render import Renderer
from npc_runtime.training.tokenizer import train_tokenizer
from npc_runtime.training.values import PRONOUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npc_runtime.tokenizer import SentencePieceTokenizer

torch.set_num_threads(1)  # tiny products: threads would only wait for each other
NAME = PlayerCard("name", ("t",), ("I'm {person}.",), ("Hm.",), ("Who am I?",), ("{person}.",), ("You never said.",),
                  ("No, {person2}.",), ("{person2}.",))  # fmt: skip
FACT = PersonaCard("has a cat called {person}", ("t",), ("Your cat?",), ("{person}.",))
SECRET = PersonaCard("killed {person}", ("secret",), ("Who was it?",), ("{person}.",), ("No.",))
CARDS = Cards((FACT, SECRET), (), (NAME,), (SmalltalkCard(("hello",), ("happy",), (("gruff", ("Hm.",)),)),))
SCENES = [Scene(Persona("Ann", "cook"), (Line("player", "Well"), Line("npc", "Good", "wary")), "s", True)] * 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    rng = random.Random(1)
    lines = ["".join(rng.choice("abcdefghiklmnoprstuw") for _ in range(6)) + " never said" for _ in range(300)]
    return train_tokenizer(lines, tmp_path_factory.mktemp("t") / "tokenizer.model", 330, 1)


@pytest.fixture(scope="module")
def model() -> Mamba:
    torch.manual_seed(1)
    return Mamba(ModelConfig(d_model=16, n_layer=2, vocab_size=330)).eval()


class Scripted(Talker):
    """A talker whose answers are made from the text of its prompts."""

    def __init__(self, tokenizer: SentencePieceTokenizer, say: str) -> None:
        self.say, self._tok = say, tokenizer
        super().__init__(BackendRows.__new__(BackendRows), tokenizer)

    def answers(self, prompts: Sequence[Sequence[int]], max_tokens: int = 40) -> list[str]:
        return [self.say or self._tok.decode([t for t in p if t not in self._tok.special]) for p in prompts]


def test_recall_abstention_and_corrections_are_scored_by_what_was_told(tokenizer: SentencePieceTokenizer) -> None:
    drills = Drills(CARDS, SCENES, unseen=True)
    parrot, honest = Scripted(tokenizer, ""), Scripted(tokenizer, "You never said.")
    for gap in (1, 4):
        assert recall(parrot, drills, [NAME], gap, 5)[0] == Share(5, 5)
        assert recall(parrot, drills, phrasings(Cards()).player, gap, 12)[0] == Share(12, 12)
        assert recall(honest, drills, [NAME], gap, 5)[0] == Share(0, 5)
        assert abstention(honest, drills, [NAME], gap, 5)[0] == Share(5, 5)
        assert abstention(Scripted(tokenizer, "You are Tarn."), drills, [NAME], gap, 5)[0] == Share(0, 5)
    share, pairs = recall(parrot, drills, [NAME], 2, 5, correct=True)
    assert share == Share(5, 5)
    probe = pairs[0][0]
    assert probe.facts[0].lower() in probe.lines[2].text.lower()
    assert probe.facts[0].lower() not in probe.lines[0].text.lower()


def test_a_card_that_tells_no_value_is_not_asked(tokenizer: SentencePieceTokenizer) -> None:
    """Such a card once kept recall looking for a phrasing with a value for ever."""
    mute = PlayerCard("left_handed", ("t",), ("I'm left-handed.",), ("Oh.",), ("Which hand?",), ("The left.",))
    drills = Drills(CARDS, SCENES, unseen=True)
    assert recall(Scripted(tokenizer, ""), drills, [mute], 1, 5) == (Share(0, 0), [])
    assert {pair[0].facts != () for pair in recall(Scripted(tokenizer, ""), drills, [mute, NAME], 1, 9)[1]} == {True}


def test_persona_questions_and_secrets(tokenizer: SentencePieceTokenizer) -> None:
    parrot, honest = Scripted(tokenizer, ""), Scripted(tokenizer, "No.")
    assert persona_questions(parrot, SCENES, CARDS.persona, 4)[0] == Share(4, 4)
    assert persona_questions(honest, SCENES, CARDS.persona, 4)[0] == Share(0, 4)
    assert secrets_kept(parrot, SCENES, CARDS.persona, 4)[0] == Share(0, 4)
    assert secrets_kept(honest, SCENES, CARDS.persona, 4)[0] == Share(4, 4)


def test_whole_headers_are_asked_for_one_thing_word_for_word(tokenizer: SentencePieceTokenizer) -> None:
    spot = Spot(("black oak", "old ash"), ("What of?",), ("{1}.",))
    deck = [Known(f"the {noun} is of {{1}}", (spot,)) for noun in ("door", "table", "bridge", "roof", "gate", "boat")]
    share, pairs = whole_headers(Scripted(tokenizer, "Old oak."), SCENES, deck, 6)
    assert share == Share(0, 6)
    assert {len(probe.persona.knows) for probe, _ in pairs} == {6}
    assert whole_headers(Scripted(tokenizer, "Black oak or old ash."), SCENES, deck, 6)[0] == Share(6, 6)
    assert whole_headers(Scripted(tokenizer, ""), SCENES, [], 6) == (Share(0, 0), [])


def test_the_shipped_cast_is_asked_what_stands_in_its_headers(tokenizer: SentencePieceTokenizer) -> None:
    parrot, dumb = Scripted(tokenizer, ""), Scripted(tokenizer, "...")
    share, pairs = cast_questions(parrot, 1000)
    assert share.of == len({(probe.persona.name, probe.lines[0].text) for probe, _ in pairs}) > 150
    wrong = [probe.lines[0].text for probe, answer in pairs if not told(answer, probe.facts)]
    assert wrong == [], "a right answer must be in what the character knows"
    assert not any(told(probe.lines[0].text, probe.facts) for probe, _ in pairs)
    assert cast_questions(dumb, 20)[0] == Share(0, 20)
    assert told("Six crowns.", ("six|6", "crowns"))
    assert not told("Sixty crowns.", ("six|6", "crowns"))


def test_scores_can_fail() -> None:
    assert holds("You're Wren, of course.", ["wren"])
    assert not holds("You're Wrenna.", ["Wren"])
    assert not holds("Wren, of somewhere.", ["Wren", "Maresk"])
    assert ignorant("You never told me.", "")
    assert ignorant("I'd have to ask you that.", "")
    assert not ignorant("You never were Tolliver.", "")
    assert not ignorant("Forty coins.", "")
    said = (("One two three four five.", "end"),) * 2 + (("...", "end"), ("Long", "length"))
    spoken = [Spoken("wary", None, text, finish) for text, finish in said]
    found = faults([spoken])
    assert (found.replies, found.loops, found.repeats, found.broken) == (4, 0, 1, 2)
    assert Share(0, 0).percent == 0


def rows_of(model: Mamba, tokenizer: SentencePieceTokenizer, kind: str) -> TorchRows | BackendRows:
    if kind == "torch":
        return TorchRows(model)
    tensors = dense_tensors(model.state_dict(), model.config)
    return BackendRows(ReferenceBackend(ReferenceModel(tensors, model.config), slots=8))


def test_rows_on_the_torch_model_and_on_a_backend_agree(model: Mamba, tokenizer: SentencePieceTokenizer) -> None:
    drawn = []
    for kind in ("torch", "backend"):
        rows = rows_of(model, tokenizer, kind)
        rows.start([[5, 9, 200, 31], [7], [44, 45]])
        rows.read([[12], [], [13, 14]])
        tokens, steps = [1, 2, 3], []
        for position in range(6):
            draws: list[Draw | None] = [Draw(token, GREEDY, 0, 0, position) for token in tokens]
            draws[1] = None if position == 3 else draws[1]
            drawn_now = rows.step(draws)
            tokens = [new if draw else old for new, old, draw in zip(drawn_now, tokens, draws, strict=True)]
            steps.append(list(tokens))
        drawn.append(steps)
    assert drawn[0] == drawn[1]


def test_perplexity_counts_only_what_the_character_says(model: Mamba, tokenizer: SentencePieceTokenizer) -> None:
    [one, other] = [perplexity(rows_of(model, tokenizer, kind), tokenizer, SCENES[:2]) for kind in ("torch", "backend")]
    assert one.per_token == pytest.approx(other.per_token, rel=1e-3)
    mood_say = len(tokenizer.encode("wary")) + 1
    assert one.tokens == 2 * (mood_say + len(tokenizer.encode("Good")) + 1)
    assert one.bits_per_byte == pytest.approx(math.log2(one.per_token) * one.tokens / (2 * len(b"Good")))


def test_a_trigram_knows_what_it_read_and_sums_to_one(tokenizer: SentencePieceTokenizer) -> None:
    text = np.asarray([1, 2, 3, 1, 2, 3, 1, 2, 4] * 50, np.uint16)
    trigram = Trigram(text, 1 << 20)
    for before, last in ((1, 2), (2, 3), (9, 9), (9, 2)):
        assert sum(trigram.probability(before, last, token, 12) for token in range(12)) == pytest.approx(1)
    assert trigram.probability(1, 2, 3, 12) > 0.6 > 0.2 > trigram.probability(1, 2, 4, 12) * 0.6
    assert trigram.probability(7, 7, 2, 12) > trigram.probability(7, 7, 11, 12) > 0
    assert Trigram(text, 12).entries == 2
    read = Renderer(tokenizer).scene(SCENES[0]).tokens
    known = Trigram(np.tile(read, 40), 1 << 20).perplexity(tokenizer, SCENES[:2])
    assert known.per_token < 2 < Trigram(text, 1 << 20).perplexity(tokenizer, SCENES[:2]).per_token
    assert known.tokens == perplexity(rows_of(Mamba(ModelConfig(16, 2, 330)).eval(), tokenizer, "torch"), tokenizer,
                                      SCENES[:2]).tokens  # fmt: skip


def test_heads_are_held_against_the_author(model: Mamba, tokenizer: SentencePieceTokenizer) -> None:
    lines = (Line("player", "Take it"), Line("npc", "Good", "happy", "take"), Line("npc", "No", "wary"))
    scenes = [Scene(Persona("Ann", "cook"), lines, "s", True)]
    talker = Scripted(tokenizer, "")
    talker.heads = lambda prompts: [Head("happy", "take"), Head("wary", "give")]  # type: ignore[method-assign]
    assert heads(talker, scenes) == {
        "moods that agree": Share(2, 2),
        "actions, precision": Share(1, 2),
        "actions, recall": Share(1, 1),
    }
    found = Talker(rows_of(model, tokenizer, "torch"), tokenizer)
    prompts = [found.prompt(scenes[0].persona, lines[:at]) for at in (1, 2)]
    assert found.heads(prompts) == found.heads(prompts)
    assert all(head.mood in MOODS for head in found.heads(prompts))


def test_in_play_the_model_answers_every_line_itself(model: Mamba, tokenizer: SentencePieceTokenizer) -> None:
    lines = [Line("player", "I'm Wren."), Line("player", "Well"), Line("npc", "Good"), Line("event", "Night falls."),
             Line("player", "Hm"), Line("npc", "No"), Line("npc", "Yes")]  # fmt: skip
    assert [[line.text for line in part] for part in turns(lines)] == [["I'm Wren."], ["Well"], ["Night falls.", "Hm"]]
    talker = Talker(rows_of(model, tokenizer, "torch"), tokenizer)
    drills = Drills(CARDS, SCENES, unseen=True)
    share, pairs = played(talker, drills, [NAME], 2, 3)
    assert (share.right, share.of, len(pairs)) == (0, 3, 3)
    assert played(talker, drills, [NAME], 2, 3)[1] == pairs
    talker.answers_now = lambda questions, max_tokens=40: [probe.facts[0] for probe, _ in pairs]  # type: ignore[method-assign]
    assert played(talker, drills, [NAME], 2, 3)[0] == Share(3, 3)


def test_simulated_conversations_repeat_with_the_seed(model: Mamba, tokenizer: SentencePieceTokenizer) -> None:
    lines = scripts(SCENES, CARDS.smalltalk, 2, 3)
    talk = [
        simulate(
            Talker(rows_of(model, tokenizer, "torch"), tokenizer),
            [Persona("A", "b")] * 2,
            lines,
            Sampling(max_tokens=5),
        )
        for _ in range(2)
    ]
    assert talk[0] == talk[1]
    assert [len(spoken) for spoken in talk[0]] == [3, 3]
    assert all(reply.finish in ("end", "length") for spoken in talk[0] for reply in spoken)


def test_a_whole_sheet(model: Mamba, tokenizer: SentencePieceTokenizer) -> None:
    sheet = Sheet()
    exam, size = Exam(SCENES, CARDS, CARDS), Size(probes=2, gaps=(1, 2), scenes=1, conversations=1, turns=1)
    lines = list(evaluate(TorchRows(model), tokenizer, exam, size, sheet))
    assert len(lines) == len(sheet.figures)
    assert "told facts after 1, phrasings unseen" in sheet.text()
    assert sheet.figures["simulated conversations"]["replies"] == 1
    assert "What is my name?" in sheet.samples


def test_grammars_hardly_ever_ask_in_the_exams_own_words() -> None:
    """Plain questions ("Where do I live?") meet by chance; a wording taken over would come up far more often."""

    def plain(text: str) -> str:
        return " ".join(re.findall(r"[a-z']+", text.lower()))

    cards = phrasings(Cards())
    exam = {plain(text) for card in (*cards.player, *cards.persona) for text in card.ask}
    asked = []
    for seed in range(600):
        rng = random.Random(f"meeting/{seed}")
        for grammar in GRAMMARS:
            asked += [fact.ask()[0].text for fact in grammar.draw(rng)]
            asked += [step[0].text for step in grammar.owned(rng, dict(PRONOUNS[0]))[1]]
    assert len(asked) > 4000
    assert sum(plain(text) in exam for text in asked) < len(asked) / 200


def test_phrasings_that_were_learned_are_not_asked() -> None:
    whole = phrasings(Cards())
    one = next(card for card in whole.player if len(card.ask) > 1)
    learned = replace(NAME, ask=(one.ask[0].upper() + "!",), tell=one.tell)
    left = phrasings(Cards(player=(learned,), persona=(replace(FACT, ask=whole.persona[0].ask),)))
    assert one.kind not in {card.kind for card in left.player}
    assert whole.persona[0].fact not in {card.fact for card in left.persona}
    fewer = phrasings(Cards(player=(replace(learned, tell=NAME.tell),)))
    assert [card.ask for card in fewer.player if card.kind == one.kind] == [one.ask[1:]]
