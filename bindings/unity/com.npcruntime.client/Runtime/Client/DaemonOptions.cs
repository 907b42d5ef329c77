#nullable enable
using System;
using System.Collections.Generic;

namespace NpcRuntime
{
    /// <summary>How a daemon of our own is started.</summary>
    public sealed class DaemonOptions
    {
        /// <summary>The program and its first arguments: <c>npc-runtime</c> on the PATH, or the frozen one that ships with the game.</summary>
        public IReadOnlyList<string> Command { get; set; } = new[] { "npc-runtime" };

        /// <summary>Folder of the Bundle; null: the one that npc-runtime brings.</summary>
        public string? Bundle { get; set; }

        /// <summary><c>auto</c>, <c>onnx</c>, <c>cuda</c> or <c>reference</c>.</summary>
        public string Backend { get; set; } = "auto";

        /// <summary>Folders in which personas are found by name, before the bundled ones.</summary>
        public IReadOnlyList<string> Personas { get; set; } = Array.Empty<string>();

        /// <summary>Further options of <c>npc-runtime serve</c>.</summary>
        public IReadOnlyList<string> Options { get; set; } = Array.Empty<string>();

        /// <summary>Environment variables beside our own; a null value takes one away.</summary>
        public IReadOnlyDictionary<string, string?> Environment { get; set; } = new Dictionary<string, string?>();

        /// <summary>How long it may take to become ready.</summary>
        public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(60);
    }
}
