#nullable enable
using System;
using System.Collections.Generic;
using System.Text;

namespace NpcRuntime
{
    /// <summary>
    /// Every failure of a verb: <see cref="Kind"/> for programs, <see cref="Exception.Message"/> (what was expected and
    /// what came) and <see cref="Hint"/> (what to do) for the log.
    /// </summary>
    public sealed class NpcException : Exception
    {
        private static readonly Dictionary<string, NpcErrorCode> Kinds = MakeKinds();

        /// <summary>An error of this client, or one that the daemon told.</summary>
        public NpcException(NpcErrorCode kind, string message, string hint = "", bool retry = false, Exception? inner = null)
            : base(message, inner)
        {
            Kind = kind;
            Code = Spelled(kind);
            Hint = hint;
            Retry = retry;
        }

        private NpcException(string code, string message, string hint, bool retry)
            : this(Kinds.TryGetValue(code, out NpcErrorCode kind) ? kind : NpcErrorCode.Internal, message, hint, retry)
        {
            Code = code;
        }

        /// <summary>The stable code to switch on.</summary>
        public NpcErrorCode Kind { get; }

        /// <summary>The code as the wire spells it, such as <c>queue_full</c>; also for codes newer than this client.</summary>
        public string Code { get; }

        /// <summary>What to do about it; may be empty.</summary>
        public string Hint { get; }

        /// <summary>Whether the same request may succeed later.</summary>
        public bool Retry { get; }

        /// <summary>Code, message and hint on one line, for logs.</summary>
        public string Told => Hint.Length == 0 ? $"{Code}: {Message}" : $"{Code}: {Message} (hint: {Hint})";

        internal static NpcException FromWire(Wire.Fields told) =>
            new NpcException(told.TextOr("code", "internal"), told.TextOr("text", ""), told.TextOr("hint", ""), told.FlagOr("retry", false));

        internal static NpcException BadFrame(string message) =>
            new NpcException(NpcErrorCode.BadFrame, message, "Is this address an npc-runtime daemon's, of the same version?");

        internal static NpcException Lost(string message, Exception? inner = null) => new NpcException(
            NpcErrorCode.ConnectionLost, message, "Check that the daemon runs, then connect again; a journal keeps only named Sessions", true, inner);

        /// <summary><c>QueueFull</c> to <c>queue_full</c>.</summary>
        internal static string Spelled(NpcErrorCode kind)
        {
            var code = new StringBuilder();
            foreach (char letter in kind.ToString())
            {
                if (char.IsUpper(letter) && code.Length > 0)
                {
                    code.Append('_');
                }
                code.Append(char.ToLowerInvariant(letter));
            }
            return code.ToString();
        }

        private static Dictionary<string, NpcErrorCode> MakeKinds()
        {
            var kinds = new Dictionary<string, NpcErrorCode>();
            for (NpcErrorCode kind = NpcErrorCode.Internal; kind <= NpcErrorCode.NoRuntime; kind++)
            {
                kinds[Spelled(kind)] = kind;
            }
            return kinds;
        }
    }
}
