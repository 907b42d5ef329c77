#nullable enable
using System;
using UnityEngine;

namespace NpcRuntime
{
    /// <summary>A line of the player and how the character answers it: shows the model the voice.</summary>
    [Serializable]
    public sealed class NpcSample
    {
        /// <summary>What the player says.</summary>
        [TextArea]
        public string player = "";

        /// <summary>What the character answers.</summary>
        [TextArea]
        public string npc = "";

        /// <summary>In which mood.</summary>
        public string mood = "neutral";

        /// <summary>With which action; empty for none.</summary>
        public string action = "";
    }
}
