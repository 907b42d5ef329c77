#nullable enable
using System;
using System.Collections.Generic;
using System.Text;

namespace NpcRuntime.Wire
{
    /// <summary>Reads msgpack of a peer that is not trusted: depth, counts and lengths are checked against what is there.</summary>
    internal ref struct MsgPackReader
    {
        /// <summary>Levels of lists and maps that are read.</summary>
        internal const int MaxDepth = 32;

        private static readonly UTF8Encoding Utf8 = new UTF8Encoding(false, true);
        private readonly ReadOnlySpan<byte> _bytes;
        private int _at;

        internal MsgPackReader(ReadOnlySpan<byte> bytes)
        {
            _bytes = bytes;
            _at = 0;
        }

        internal bool AtEnd => _at == _bytes.Length;

        /// <summary>The one value that a frame holds.</summary>
        /// <exception cref="NpcException">BadFrame: not msgpack, truncated, too deep, or with more behind it.</exception>
        internal static object? Unpack(ReadOnlySpan<byte> bytes)
        {
            var reader = new MsgPackReader(bytes);
            object? value = reader.Value(0);
            return reader.AtEnd ? value : throw NpcException.BadFrame($"{bytes.Length - reader._at} bytes after a message's end");
        }

        /// <summary>Entries of the map that begins here.</summary>
        internal int MapHeader()
        {
            byte form = Byte();
            long count = form switch
            {
                >= 0x80 and <= 0x8F => form & 0x0F,
                0xDE => (long)Big(2),
                0xDF => (long)Big(4),
                _ => throw NpcException.BadFrame($"a map was expected, got form 0x{form:x2}"),
            };
            return Fitting(count, 2);
        }

        /// <summary>Reads past a text and says whether it is <paramref name="ascii"/>, without making a string of it.</summary>
        internal bool NextIs(ReadOnlySpan<byte> ascii) => Taken(TextLength(Byte())).SequenceEqual(ascii);

        /// <summary>A positive integer, as ids are; false for anything else.</summary>
        internal bool TryId(out long id)
        {
            byte form = Byte();
            ulong value = form < 0x80 ? form : form >= 0xCC && form <= 0xCF ? Big(1 << (form - 0xCC)) : 0;
            id = (long)(value & long.MaxValue);
            return id > 0;
        }

        /// <summary>The bytes of the text that begins here.</summary>
        internal ReadOnlySpan<byte> RawText() => Taken(TextLength(Byte()));

        internal string Text() => Decoded(RawText());

        internal object? Value(int depth)
        {
            if (depth > MaxDepth)
            {
                throw NpcException.BadFrame($"values nested more than {MaxDepth} levels deep");
            }
            byte form = Byte();
            return form switch
            {
                < 0x80 => (object)(long)form,
                >= 0xE0 => (object)(long)(sbyte)form,
                <= 0x8F => Map(form & 0x0F, depth),
                <= 0x9F => List(form & 0x0F, depth),
                <= 0xBF or (>= 0xD9 and <= 0xDB) => Decoded(Taken(TextLength(form))),
                0xC0 => null,
                0xC2 => false,
                0xC3 => true,
                >= 0xC4 and <= 0xC6 => Taken(Big(1 << (form - 0xC4))).ToArray(),
                0xCA => (double)BitConverter.Int32BitsToSingle((int)Big(4)),
                0xCB => BitConverter.Int64BitsToDouble((long)Big(8)),
                >= 0xCC and <= 0xCF => Unsigned(Big(1 << (form - 0xCC))),
                >= 0xD0 and <= 0xD3 => Signed(1 << (form - 0xD0)),
                0xDC => List((long)Big(2), depth),
                0xDD => List((long)Big(4), depth),
                0xDE => Map((long)Big(2), depth),
                0xDF => Map((long)Big(4), depth),
                _ => throw NpcException.BadFrame($"form 0x{form:x2} has no meaning in this protocol"),
            };
        }

        private static object Unsigned(ulong value) => value <= long.MaxValue ? (object)(long)value : value;

        private static string Decoded(ReadOnlySpan<byte> bytes)
        {
            try
            {
                return Utf8.GetString(bytes);
            }
            catch (ArgumentException)
            {
                throw NpcException.BadFrame("a text that is not UTF-8");
            }
        }

        private object Signed(int bytes)
        {
            int unused = 64 - 8 * bytes;
            return unchecked((long)(Big(bytes) << unused)) >> unused;
        }

        private List<object?> List(long count, int depth)
        {
            int size = Fitting(count, 1);
            var list = new List<object?>(Math.Min(size, 64));
            for (int i = 0; i < size; i++)
            {
                list.Add(Value(depth + 1));
            }
            return list;
        }

        private Dictionary<string, object?> Map(long count, int depth)
        {
            int size = Fitting(count, 2);
            var map = new Dictionary<string, object?>(Math.Min(size, 64), StringComparer.Ordinal);
            for (int i = 0; i < size; i++)
            {
                string key = Text();
                map[key] = Value(depth + 1);
            }
            return map;
        }

        /// <summary>A count that the bytes at hand can hold at all, so that nothing is set aside for an empty promise.</summary>
        private int Fitting(long count, int bytesEach)
        {
            if (count * bytesEach > _bytes.Length - _at)
            {
                throw NpcException.BadFrame($"{count} entries announced, {_bytes.Length - _at} bytes left");
            }
            return (int)count;
        }

        private ulong TextLength(byte form)
        {
            if (form >= 0xA0 && form <= 0xBF)
            {
                return (ulong)(form & 0x1F);
            }
            if (form >= 0xD9 && form <= 0xDB)
            {
                return Big(1 << (form - 0xD9));
            }
            throw NpcException.BadFrame($"a text was expected, got form 0x{form:x2}");
        }

        private byte Byte() => Taken(1)[0];

        private ulong Big(int bytes)
        {
            ulong value = 0;
            foreach (byte one in Taken((ulong)bytes))
            {
                value = (value << 8) | one;
            }
            return value;
        }

        private ReadOnlySpan<byte> Taken(ulong count)
        {
            if (count > (ulong)(_bytes.Length - _at))
            {
                throw NpcException.BadFrame($"{count} bytes announced, {_bytes.Length - _at} left");
            }
            _at += (int)count;
            return _bytes.Slice(_at - (int)count, (int)count);
        }
    }
}
