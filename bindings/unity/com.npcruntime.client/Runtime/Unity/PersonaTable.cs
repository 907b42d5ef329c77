#nullable enable
using System.Collections;
using System.Collections.Generic;
using System.Linq;

namespace NpcRuntime
{
    /// <summary>Fields of a persona file by type; what is missing is empty.</summary>
    internal readonly struct PersonaTable
    {
        private readonly IReadOnlyDictionary<string, object?> _table;

        internal PersonaTable(IReadOnlyDictionary<string, object?> table) => _table = table;

        internal bool Has(string name) => _table.ContainsKey(name);

        internal string Text(string name, string other = "") => Get(name) is object value ? value as string ?? throw Wrong(name, "text") : other;

        internal double Number(string name)
        {
            object? value = Get(name);
            return value is long whole ? whole : value is double real ? real : value == null ? -1 : throw Wrong(name, "a number");
        }

        internal string[] Texts(string name) => Items(name).Select(item => item as string ?? throw Wrong(name, "a list of texts")).ToArray();

        internal IEnumerable<PersonaTable> Tables(string name) => Items(name).Select(item =>
            new PersonaTable(item as IReadOnlyDictionary<string, object?> ?? throw Wrong(name, "a list of tables")));

        internal PersonaTable Table(string name) => new PersonaTable(
            Get(name) is object value
                ? value as IReadOnlyDictionary<string, object?> ?? throw Wrong(name, "a table")
                : new Dictionary<string, object?>());

        private static NpcException Wrong(string name, string expected) =>
            new NpcException(NpcErrorCode.BadPersona, $"`{name}` must be {expected}", "personas/README.md shows every field by example");

        private IEnumerable<object?> Items(string name) =>
            Get(name) is object value ? (value as IList ?? throw Wrong(name, "a list")).Cast<object?>() : Enumerable.Empty<object?>();

        private object? Get(string name) => _table.TryGetValue(name, out object? value) ? value : null;
    }
}
