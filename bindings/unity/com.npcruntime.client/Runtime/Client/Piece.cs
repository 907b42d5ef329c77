#nullable enable

namespace NpcRuntime
{
    /// <summary>Part of a Reply as it becomes known: its mood first, its action if there is one, then text Delta by Delta.</summary>
    public readonly struct Piece
    {
        internal Piece(string? mood, string? action, string text)
        {
            Mood = mood;
            Action = action;
            Text = text;
        }

        /// <summary>The mood, when this Piece tells it; else null.</summary>
        public string? Mood { get; }

        /// <summary>The action, when this Piece tells one; else null.</summary>
        public string? Action { get; }

        /// <summary>The next Delta of the text; empty when this Piece tells mood or action.</summary>
        public string Text { get; }
    }
}
