#nullable enable
using System;
using System.Collections.Generic;
using System.Linq;
using UnityEngine;

namespace NpcRuntime
{
    /// <summary>Who somebody is: an asset that a writer edits, or one that is imported from a TOML file.</summary>
    [CreateAssetMenu(fileName = "Persona", menuName = "NPC Runtime/Persona")]
    public sealed class NpcPersona : ScriptableObject
    {
        /// <summary>As the character gives its name.</summary>
        [Tooltip("Required. At most 64 characters.")]
        public string personaName = "";

        /// <summary>What it is to others.</summary>
        [Tooltip("Required, such as: blacksmith. At most 120 characters.")]
        public string role = "";

        /// <summary>What it is like.</summary>
        [Tooltip("Up to 8, a few words each, without commas.")]
        public string[] traits = Array.Empty<string>();

        /// <summary>How it speaks.</summary>
        [TextArea]
        public string voice = "";

        /// <summary>What it can tell.</summary>
        [Tooltip("Up to 24 facts, a sentence each, without semicolons.")]
        public string[] knows = Array.Empty<string>();

        /// <summary>What it is after.</summary>
        [TextArea]
        public string wants = "";

        /// <summary>Where and when it lives.</summary>
        [TextArea]
        public string setting = "";

        /// <summary>Moods that its Replies may have; empty: the default ones.</summary>
        public string[] moods = Array.Empty<string>();

        /// <summary>Actions that its Replies may take; empty: the default ones.</summary>
        public string[] actions = Array.Empty<string>();

        /// <summary>Whether it takes no action at all.</summary>
        [Tooltip("On: no actions, whatever the list above says.")]
        public bool neverActs;

        /// <summary>What it says first; empty for nothing.</summary>
        [TextArea]
        public string opening = "";

        /// <summary>Mood of the opening.</summary>
        public string openingMood = "neutral";

        /// <summary>Lines that show its voice.</summary>
        public NpcSample[] samples = Array.Empty<NpcSample>();

        /// <summary>Lines that a game may show when no Reply can be had.</summary>
        public string[] fallbacks = Array.Empty<string>();

        // Doubles, because a float's 0.7 is not the 0.7 of a TOML file, and another Persona to the daemon.

        /// <summary>0 to 5; -1: the Bundle's own.</summary>
        [Header("Sampling (-1: the Bundle's own)")]
        public double temperature = -1;

        /// <summary>0.01 to 1; -1: the Bundle's own.</summary>
        public double topP = -1;

        /// <summary>0 to 10; -1: the Bundle's own.</summary>
        public double repetition = -1;

        /// <summary>1 to 512; -1: the Bundle's own.</summary>
        public int maxTokens = -1;

        /// <summary>The fields as the wire wants them; what is empty is left out.</summary>
        public IReadOnlyDictionary<string, object?> ToTable()
        {
            var table = new Dictionary<string, object?> { ["name"] = personaName, ["role"] = role };
            Add(table, "traits", traits);
            Add(table, "voice", voice);
            Add(table, "knows", knows);
            Add(table, "wants", wants);
            Add(table, "setting", setting);
            Add(table, "moods", moods);
            Add(table, "actions", actions);
            if (neverActs)
            {
                table["actions"] = Array.Empty<string>();
            }
            Add(table, "opening", opening);
            if (opening.Length > 0)
            {
                table["opening_mood"] = openingMood;
            }
            if (samples.Length > 0)
            {
                table["samples"] = samples.Select(Table).ToList();
            }
            Add(table, "fallbacks", fallbacks);
            Dictionary<string, object?> sampling = Sampling();
            if (sampling.Count > 0)
            {
                table["sampling"] = sampling;
            }
            return table;
        }

        /// <summary>Takes over the fields of a persona file; what the file leaves out becomes empty.</summary>
        /// <exception cref="NpcException">BadPersona: not TOML, or without <c>name</c> and <c>role</c>.</exception>
        public void ImportToml(string toml)
        {
            var told = new PersonaTable(PersonaToml.Read(toml));
            personaName = told.Text("name");
            role = told.Text("role");
            traits = told.Texts("traits");
            voice = told.Text("voice");
            knows = told.Texts("knows");
            wants = told.Text("wants");
            setting = told.Text("setting");
            moods = told.Texts("moods");
            actions = told.Texts("actions");
            neverActs = told.Has("actions") && actions.Length == 0;
            opening = told.Text("opening");
            openingMood = told.Text("opening_mood", "neutral");
            samples = told.Tables("samples").Select(Sample).ToArray();
            fallbacks = told.Texts("fallbacks");
            PersonaTable sampling = told.Table("sampling");
            temperature = sampling.Number("temperature");
            topP = sampling.Number("top_p");
            repetition = sampling.Number("repetition");
            maxTokens = (int)sampling.Number("max_tokens");
        }

        /// <summary>What keeps it from being spawned, as far as it shows without a daemon; empty when nothing.</summary>
        public IReadOnlyList<string> Problems()
        {
            var found = new List<string>();
            Check(found, personaName.Trim().Length > 0 && personaName.Length <= 64, "Give it a name of at most 64 characters.");
            Check(found, role.Trim().Length > 0 && role.Length <= 120, "Give it a role of at most 120 characters.");
            Check(found, traits.Length <= 8 && !traits.Any(trait => trait.Contains(",")), "Traits: at most 8, without commas.");
            Check(found, knows.Length <= 24 && !knows.Any(fact => fact.Contains(";")), "Knows: at most 24, without semicolons.");
            Check(found, samples.Length <= 8 && samples.All(sample => sample.player.Length > 0 && sample.npc.Length > 0), "Samples: at most 8, both lines filled in.");
            return found;
        }

        private static void Check(List<string> found, bool good, string problem)
        {
            if (!good)
            {
                found.Add(problem);
            }
        }

        private static void Add(Dictionary<string, object?> table, string name, string text)
        {
            if (text.Length > 0)
            {
                table[name] = text;
            }
        }

        private static void Add(Dictionary<string, object?> table, string name, string[] texts)
        {
            if (texts.Length > 0)
            {
                table[name] = texts;
            }
        }

        private static Dictionary<string, object?> Table(NpcSample sample)
        {
            var table = new Dictionary<string, object?> { ["player"] = sample.player, ["npc"] = sample.npc, ["mood"] = sample.mood };
            Add(table, "action", sample.action);
            return table;
        }

        private static NpcSample Sample(PersonaTable told) => new NpcSample
        {
            player = told.Text("player"), npc = told.Text("npc"), mood = told.Text("mood", "neutral"), action = told.Text("action"),
        };

        private Dictionary<string, object?> Sampling()
        {
            var sampling = new Dictionary<string, object?>();
            foreach ((string name, double value) in new[] { ("temperature", temperature), ("top_p", topP), ("repetition", repetition) })
            {
                if (value >= 0)
                {
                    sampling[name] = value;
                }
            }
            if (maxTokens >= 0)
            {
                sampling["max_tokens"] = maxTokens;
            }
            return sampling;
        }
    }
}
