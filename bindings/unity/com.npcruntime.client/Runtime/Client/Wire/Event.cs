#nullable enable
using System;
using System.Collections.Generic;

namespace NpcRuntime.Wire
{
    /// <summary>An answer of the daemon: the request's id, what it is, and its fields.</summary>
    internal readonly struct Event
    {
        private static readonly byte[] IdKey = { (byte)'i', (byte)'d' };
        private static readonly byte[] EvKey = { (byte)'e', (byte)'v' };
        private static readonly byte[] Delta = { (byte)'d', (byte)'e', (byte)'l', (byte)'t', (byte)'a' };
        private static readonly byte[] TextKey = { (byte)'t', (byte)'e', (byte)'x', (byte)'t' };

        private Event(long id, string ev, Fields fields)
        {
            Id = id;
            Ev = ev;
            Fields = fields;
        }

        internal long Id { get; }

        internal string Ev { get; }

        internal Fields Fields { get; }

        /// <exception cref="NpcException">BadFrame: not a map with <c>ev</c>.</exception>
        internal static Event Read(ReadOnlySpan<byte> message)
        {
            if (!(MsgPackReader.Unpack(message) is Dictionary<string, object?> map))
            {
                throw NpcException.BadFrame("a message must be a map");
            }
            var fields = new Fields(map);
            long id = map.TryGetValue("id", out object? value) && value is long number && number >= 0 ? number : 0;
            return new Event(id, fields.Text("ev"), fields);
        }

        /// <summary>A Delta as the daemon writes it (id, ev, text), read without any garbage but its text; else false.</summary>
        internal static bool TryDelta(ReadOnlySpan<byte> message, out long id, out Piece piece)
        {
            id = 0;
            piece = default;
            var reader = new MsgPackReader(message);
            if (message.Length < 16 || message[0] != 0x83 || reader.MapHeader() != 3 || !reader.NextIs(IdKey)
                || !reader.TryId(out id) || !reader.NextIs(EvKey) || !reader.NextIs(Delta) || !reader.NextIs(TextKey))
            {
                return false;
            }
            piece = new Piece(null, null, reader.Text());
            return reader.AtEnd ? true : throw NpcException.BadFrame("bytes after a message's end");
        }
    }
}
