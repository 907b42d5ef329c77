#nullable enable
using System;
using System.Collections;
using System.Collections.Generic;
using System.Text;

namespace NpcRuntime.Wire
{
    /// <summary>Writes plain values (null, bool, integers, double, string, byte[], lists, maps with text keys) in their shortest form.</summary>
    internal sealed class MsgPackWriter
    {
        /// <summary>Levels of lists and maps that are written, so that a list holding itself is refused.</summary>
        internal const int MaxDepth = 32;

        private byte[] _bytes = new byte[256];
        private int _length;

        /// <summary>A value as msgpack.</summary>
        /// <exception cref="NpcException">BadInput: the value holds something that msgpack has no form for.</exception>
        internal static byte[] Pack(object? value)
        {
            var writer = new MsgPackWriter();
            writer.Write(value, 0);
            return writer._bytes.AsSpan(0, writer._length).ToArray();
        }

        private void Write(object? value, int depth)
        {
            if (depth > MaxDepth)
            {
                throw new NpcException(NpcErrorCode.BadInput, $"a value may be nested {MaxDepth} levels deep");
            }
            switch (value)
            {
                case null: Put(0xC0); break;
                case bool flag: Put(flag ? (byte)0xC3 : (byte)0xC2); break;
                case int number: Integer(number); break;
                case long number: Integer(number); break;
                case ulong number: Unsigned(number); break;
                case float number: Real(number); break;
                case double number: Real(number); break;
                case string text: Text(text); break;
                case byte[] data: Binary(data); break;
                case IReadOnlyDictionary<string, object?> map: Map(map, depth); break;
                case IList list: List(list, depth); break;
                default: throw new NpcException(NpcErrorCode.BadInput, $"a {value.GetType().Name} cannot be sent");
            }
        }

        private void Integer(long value)
        {
            if (value >= 0)
            {
                Unsigned((ulong)value);
            }
            else if (value >= -32)
            {
                Put(unchecked((byte)value));
            }
            else if (value >= sbyte.MinValue)
            {
                Put(0xD0, unchecked((ulong)value), 1);
            }
            else if (value >= short.MinValue)
            {
                Put(0xD1, unchecked((ulong)value), 2);
            }
            else
            {
                bool wide = value < int.MinValue;
                Put(wide ? (byte)0xD3 : (byte)0xD2, unchecked((ulong)value), wide ? 8 : 4);
            }
        }

        private void Unsigned(ulong value)
        {
            if (value < 0x80)
            {
                Put((byte)value);
            }
            else if (value <= byte.MaxValue)
            {
                Put(0xCC, value, 1);
            }
            else if (value <= ushort.MaxValue)
            {
                Put(0xCD, value, 2);
            }
            else
            {
                bool wide = value > uint.MaxValue;
                Put(wide ? (byte)0xCF : (byte)0xCE, value, wide ? 8 : 4);
            }
        }

        private void Real(double value) => Put(0xCB, unchecked((ulong)BitConverter.DoubleToInt64Bits(value)), 8);

        private void Text(string text)
        {
            // A lone surrogate becomes U+FFFD, as Encoding.UTF8 does: half a letter of a truncated input field.
            int count = Encoding.UTF8.GetByteCount(text);
            Head(count, 0xA0, 32, 0xD9);
            Encoding.UTF8.GetBytes(text, Room(count));
        }

        private void Binary(byte[] data)
        {
            Head(data.Length, 0, 0, 0xC4);
            data.AsSpan().CopyTo(Room(data.Length));
        }

        private void List(IList list, int depth)
        {
            Collection(list.Count, 0x90, 0xDC);
            foreach (object? item in list)
            {
                Write(item, depth + 1);
            }
        }

        private void Map(IReadOnlyDictionary<string, object?> map, int depth)
        {
            Collection(map.Count, 0x80, 0xDE);
            foreach (KeyValuePair<string, object?> entry in map)
            {
                Text(entry.Key);
                Write(entry.Value, depth + 1);
            }
        }

        private void Head(int count, byte fix, int below, byte first)
        {
            if (count < below)
            {
                Put((byte)(fix | count));
            }
            else
            {
                int size = count <= byte.MaxValue ? 0 : count <= ushort.MaxValue ? 1 : 2;
                Put((byte)(first + size), (ulong)count, 1 << size);
            }
        }

        private void Collection(int count, byte fix, byte first)
        {
            if (count < 16)
            {
                Put((byte)(fix | count));
            }
            else
            {
                bool wide = count > ushort.MaxValue;
                Put((byte)(wide ? first + 1 : first), (ulong)count, wide ? 4 : 2);
            }
        }

        private void Put(byte one) => Room(1)[0] = one;

        private void Put(byte form, ulong value, int bytes)
        {
            Put(form);
            Span<byte> room = Room(bytes);
            for (int i = 0; i < bytes; i++)
            {
                room[i] = (byte)(value >> (8 * (bytes - 1 - i)));
            }
        }

        private Span<byte> Room(int count)
        {
            if (_bytes.Length - _length < count)
            {
                Array.Resize(ref _bytes, Math.Max(_length + count, 2 * _bytes.Length));
            }
            _length += count;
            return _bytes.AsSpan(_length - count, count);
        }
    }
}
