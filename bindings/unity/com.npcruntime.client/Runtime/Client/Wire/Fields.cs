#nullable enable
using System;
using System.Collections.Generic;

namespace NpcRuntime.Wire
{
    /// <summary>The fields of an answer, typed as they are asked for; unknown ones are never looked at.</summary>
    internal readonly struct Fields
    {
        private readonly Dictionary<string, object?> _map;

        internal Fields(Dictionary<string, object?> map) => _map = map;

        internal Dictionary<string, object?> Map => _map;

        internal string Text(string name) => Get<string>(name, "text");

        internal bool Flag(string name) => Get<bool>(name, "true or false");

        internal long Long(string name) => Get<long>(name, "an integer");

        internal int Int(string name)
        {
            long value = Long(name);
            return value >= int.MinValue && value <= int.MaxValue ? (int)value : throw Wrong(name, "a 32-bit integer", value);
        }

        internal double Number(string name) => Real(name, Get<object>(name, "a number"));

        internal byte[] Data(string name) => Get<byte[]>(name, "binary data");

        internal Fields Sub(string name) => new Fields(Get<Dictionary<string, object?>>(name, "a map"));

        internal bool Has(string name) => _map.TryGetValue(name, out object? value) && value != null;

        internal string? TextOrNull(string name) => Has(name) ? Text(name) : null;

        internal string TextOr(string name, string other) => _map.TryGetValue(name, out object? value) && value is string text ? text : other;

        internal bool FlagOr(string name, bool other) => _map.TryGetValue(name, out object? value) && value is bool flag ? flag : other;

        internal IReadOnlyList<string> Texts(string name) => Each(name, item => item as string ?? throw Wrong(name, "a list of texts", item));

        internal IReadOnlyList<double> Numbers(string name)
        {
            return Each(name, item => Real(name, item));
        }

        internal IReadOnlyList<T> Subs<T>(string name, Func<Fields, T> read) =>
            Each(name, item => read(new Fields(item as Dictionary<string, object?> ?? throw Wrong(name, "a list of maps", item))));

        internal IReadOnlyDictionary<string, string> TextMap(string name)
        {
            var texts = new Dictionary<string, string>();
            foreach (KeyValuePair<string, object?> entry in Sub(name)._map)
            {
                texts[entry.Key] = entry.Value as string ?? throw Wrong(name, "a map of texts", entry.Value);
            }
            return texts;
        }

        private static double Real(string name, object? value) => value switch
        {
            double number => number,
            long number => number,
            ulong number => number,
            _ => throw Wrong(name, "a number", value),
        };

        private static NpcException Wrong(string name, string expected, object? got) =>
            NpcException.BadFrame($"`{name}` of an answer must be {expected}, got {got?.GetType().Name ?? "nothing"}");

        private T Get<T>(string name, string expected)
        {
            _map.TryGetValue(name, out object? value);
            return value is T typed ? typed : throw Wrong(name, expected, value);
        }

        private IReadOnlyList<T> Each<T>(string name, Func<object?, T> read)
        {
            List<object?> items = Get<List<object?>>(name, "a list");
            var list = new T[items.Count];
            for (int i = 0; i < list.Length; i++)
            {
                list[i] = read(items[i]);
            }
            return list;
        }
    }
}
