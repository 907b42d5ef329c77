#nullable enable
using System.Collections.Generic;
using NUnit.Framework;
using UnityEngine;

namespace NpcRuntime.Tests
{
    [TestFixture]
    public class NpcPersonaTests
    {
        private const string Marta = "name = \"Marta\"\nrole = \"smith\"\ntraits = [\"blunt\"]\nopening = \"Mind the sparks.\"\nopening_mood = \"wary\"\n"
            + "actions = []\n[[samples]]\nplayer = \"who are you?\"\nnpc = \"Marta.\"\naction = \"point\"\n[sampling]\ntemperature = 0.7\nmax_tokens = 48\n";

        [Test]
        public void AFileIsTakenOver()
        {
            var persona = ScriptableObject.CreateInstance<NpcPersona>();
            persona.voice = "of another";
            persona.ImportToml(Marta);
            Assert.That(persona.personaName, Is.EqualTo("Marta"));
            Assert.That(persona.voice, Is.Empty);
            Assert.That(persona.neverActs, Is.True);
            Assert.That(persona.samples[0].mood, Is.EqualTo("neutral"));
            Assert.That(persona.Problems(), Is.Empty);
        }

        [Test]
        public void TheTableHoldsWhatTheFileHeld()
        {
            var persona = ScriptableObject.CreateInstance<NpcPersona>();
            persona.ImportToml(Marta);
            IReadOnlyDictionary<string, object?> table = persona.ToTable();
            Assert.That(table.Keys, Is.EquivalentTo(new[] { "name", "role", "traits", "opening", "opening_mood", "actions", "samples", "sampling" }));
            Assert.That(table["actions"], Is.Empty);
            Assert.That(table["opening_mood"], Is.EqualTo("wary"));
            var sampling = (IReadOnlyDictionary<string, object?>)table["sampling"]!;
            Assert.That(sampling["temperature"], Is.EqualTo(0.7));
            Assert.That(sampling["max_tokens"], Is.EqualTo(48));
        }

        [Test]
        public void AnEmptyPersonaSaysWhatItLacks()
        {
            var persona = ScriptableObject.CreateInstance<NpcPersona>();
            persona.traits = new[] { "a, b" };
            Assert.That(persona.Problems().Count, Is.EqualTo(3));
        }

        [TestCase("name = \"x\"\nrole = \"y\"\ntraits = \"z\"", "traits")]
        [TestCase("name = \"x\"\nrole = \"y\"\nvoice = 5", "voice")]
        [TestCase("name = \"x\"\nrole = \"y\"\nsamples = [1]", "samples")]
        [TestCase("name = \"x\"\nrole = \"y\"\nsampling = [1]", "sampling")]
        [TestCase("name = \"x\"", "role")]
        public void AFileOfAnotherShapeIsRefusedByName(string toml, string field)
        {
            var persona = ScriptableObject.CreateInstance<NpcPersona>();
            NpcException error = Assert.Throws<NpcException>(() => persona.ImportToml(toml));
            Assert.That(error.Message, Contains.Substring(field));
        }
    }
}
