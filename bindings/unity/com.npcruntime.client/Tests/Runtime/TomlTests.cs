#nullable enable
using System.Collections.Generic;
using NpcRuntime.Wire;
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    /// <summary>Persona files. That all of TOML's forms are read as Python's tomllib reads them is tested from tests/test_unity.py.</summary>
    [TestFixture]
    public class TomlTests
    {
        [Test]
        public void APersonaIsRead()
        {
            IReadOnlyDictionary<string, object?> table = PersonaToml.Read(
                "name = \"Marta\"\nrole = 'smith' # she is\nknows = [\n  \"a\",\n]\n[[samples]]\nplayer = \"hi\"\nnpc = \"Hm.\"\n[sampling]\ntop_p = 0.5\n");
            Assert.That(new[] { table["name"], table["role"] }, Is.EqualTo(new object[] { "Marta", "smith" }));
            Assert.That(table["knows"], Is.EqualTo(new[] { "a" }));
            Assert.That(((Dictionary<string, object?>)((List<object?>)table["samples"]!)[0]!)["npc"], Is.EqualTo("Hm."));
            Assert.That(((Dictionary<string, object?>)table["sampling"]!)["top_p"], Is.EqualTo(0.5));
        }

        [TestCase("role = \"smith\"", "name")]
        [TestCase("name = \"x\"\nrole = 5", "role")]
        [TestCase("name = \"x\"\nrole = \"y\"\nborn = 1979-05-27", "line 3")]
        [TestCase("name = \"x\"\nname = \"y\"", "line 2")]
        [TestCase("name = \"x", "line 1")]
        [TestCase("= 1", "line 1")]
        public void MistakesAreNamed(string toml, string told)
        {
            NpcException error = Assert.Throws<NpcException>(() => PersonaToml.Read(toml));
            Assert.That((error.Kind, error.Message.Contains(told)), Is.EqualTo((NpcErrorCode.BadPersona, true)), error.Message);
        }

        [Test]
        public void SizeAndDepthAreBounded()
        {
            Assert.Throws<NpcException>(() => PersonaToml.Read(new string('#', PersonaToml.MaxBytes + 1)));
            Assert.Throws<NpcException>(() => Toml.Parse("a = " + new string('[', 10_000)));
            Assert.Throws<NpcException>(() => Toml.Parse("a" + string.Concat(System.Linq.Enumerable.Repeat(".a", 10_000)) + " = 1"));
        }
    }
}
