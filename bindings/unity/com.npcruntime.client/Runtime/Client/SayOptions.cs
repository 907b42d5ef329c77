#nullable enable
using System.Collections.Generic;

namespace NpcRuntime
{
    /// <summary>How a line is said. What stays null is the Persona's or the daemon's own.</summary>
    public sealed class SayOptions
    {
        /// <summary><c>player</c>, or <c>event</c> for something perceived that calls for an answer.</summary>
        public string Kind { get; set; } = "player";

        /// <summary>Moods that this Reply may have.</summary>
        public IReadOnlyList<string>? Moods { get; set; }

        /// <summary>Actions that this Reply may take; an empty list allows none.</summary>
        public IReadOnlyList<string>? Actions { get; set; }

        /// <summary><c>player</c> goes before <c>background</c>.</summary>
        public string Lane { get; set; } = "player";

        /// <summary>Give up when not begun by then.</summary>
        public int? DeadlineMs { get; set; }

        /// <summary>Tokens per second at which a stream is let out; 0: as fast as made.</summary>
        public double? Pace { get; set; }

        /// <summary>Seed of this Turn, from 0 to 2^53 - 1.</summary>
        public long? Seed { get; set; }

        /// <summary>0 takes the likeliest token always.</summary>
        public double? Temperature { get; set; }

        /// <summary>Share of probability that is drawn from.</summary>
        public double? TopP { get; set; }

        /// <summary>Penalty for tokens said before.</summary>
        public double? Repetition { get; set; }

        /// <summary>Most tokens of the Reply.</summary>
        public int? MaxTokens { get; set; }
    }
}
