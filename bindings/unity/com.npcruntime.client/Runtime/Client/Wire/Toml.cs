#nullable enable
using System;
using System.Collections.Generic;
using System.Linq;

namespace NpcRuntime.Wire
{
    /// <summary>Reads TOML 1.0 without dates into plain values (bool, long, double, string, lists, maps).</summary>
    internal sealed class Toml
    {
        private const int MaxDepth = 32;
        private readonly TomlText _text;
        private readonly Dictionary<string, object?> _root = new Dictionary<string, object?>();
        private readonly HashSet<object> _headed = new HashSet<object>();
        private readonly HashSet<object> _dotted = new HashSet<object>();
        private readonly HashSet<object> _closed = new HashSet<object>();

        private Toml(string text) => _text = new TomlText(text);

        /// <exception cref="NpcException">BadPersona: names the line and what was expected.</exception>
        internal static Dictionary<string, object?> Parse(string text)
        {
            var toml = new Toml(text);
            toml.Document();
            return toml._root;
        }

        private void Document()
        {
            Dictionary<string, object?> table = _root;
            for (_text.SkipBlank(); !_text.AtEnd; _text.SkipBlank())
            {
                if (_text.Skips("[["))
                {
                    table = Header("]]", true);
                }
                else if (_text.Skips("["))
                {
                    table = Header("]", false);
                }
                else
                {
                    Entry(table, 0);
                }
                _text.EndOfLine();
            }
        }

        private Dictionary<string, object?> Header(string close, bool many)
        {
            List<string> path = Path();
            _text.Expect(close);
            Dictionary<string, object?> parent = Inner(_root, path.Take(path.Count - 1));
            string name = path[path.Count - 1];
            parent.TryGetValue(name, out object? there);
            Dictionary<string, object?> table;
            if (many)
            {
                List<object?> list = there == null ? new List<object?>() : there as List<object?> ?? throw _text.Wrong($"`{name}` to be new");
                Open(list, name);
                table = new Dictionary<string, object?>();
                list.Add(table);
                parent[name] = list;
            }
            else
            {
                table = there == null ? new Dictionary<string, object?>() : there as Dictionary<string, object?> ?? throw _text.Wrong($"`{name}` to be new");
                Open(table, name);
                parent[name] = table;
            }
            bool first = _headed.Add(table) && !_dotted.Contains(table);
            return first ? table : throw _text.Wrong($"`{name}` to be opened once");
        }

        private void Open(object item, string name)
        {
            if (_closed.Contains(item))
            {
                throw _text.Wrong($"`{name}` not to be changed after it was written inline");
            }
        }

        /// <summary>Walks a path of tables, making what is missing; of a list of tables the last one counts.</summary>
        private Dictionary<string, object?> Inner(Dictionary<string, object?> table, IEnumerable<string> path)
        {
            foreach (string name in path)
            {
                if (!table.TryGetValue(name, out object? inner))
                {
                    table[name] = inner = new Dictionary<string, object?>();
                }
                Open(inner!, name);
                object? last = inner is List<object?> list && list.Count > 0 ? list[list.Count - 1] : inner;
                table = last as Dictionary<string, object?> ?? throw _text.Wrong($"`{name}` to be a table");
            }
            return table;
        }

        private List<string> Path()
        {
            var path = new List<string>();
            do
            {
                _text.SkipSpace();
                path.Add(_text.Key());
                _text.SkipSpace();
                if (path.Count > MaxDepth)
                {
                    throw _text.Wrong($"at most {MaxDepth} parts of a key");
                }
            }
            while (_text.Skips("."));
            return path;
        }

        private void Entry(Dictionary<string, object?> table, int depth)
        {
            List<string> path = Path();
            _text.Expect("=");
            _text.SkipSpace();
            string name = path[path.Count - 1];
            Dictionary<string, object?> target = table;
            foreach (string part in path.Take(path.Count - 1))
            {
                target = Inner(target, new[] { part });
                _dotted.Add(_headed.Contains(target) ? throw _text.Wrong($"`{part}` not to be opened before") : target);
            }
            if (target.ContainsKey(name))
            {
                throw _text.Wrong($"`{name}` once");
            }
            target[name] = Value(depth);
        }

        private object? Value(int depth)
        {
            if (depth > MaxDepth)
            {
                throw _text.Wrong($"values nested {MaxDepth} levels deep at most");
            }
            switch (_text.Peek)
            {
                case '"':
                case '\'': return _text.String();
                case '[': return List(depth);
                case '{': return Inline(depth);
                default: return _text.Scalar();
            }
        }

        private List<object?> List(int depth)
        {
            var list = new List<object?>();
            _text.Expect("[");
            for (_text.SkipBlank(); !_text.Skips("]"); _text.SkipBlank())
            {
                list.Add(Value(depth + 1));
                _text.SkipBlank();
                if (!_text.Skips(","))
                {
                    _text.Expect("]");
                    break;
                }
            }
            _closed.Add(list);
            return list;
        }

        private Dictionary<string, object?> Inline(int depth)
        {
            var table = new Dictionary<string, object?>();
            _text.Expect("{");
            _text.SkipSpace();
            bool more = !_text.Skips("}");
            while (more)
            {
                Entry(table, depth + 1);
                _text.SkipSpace();
                more = _text.Skips(",");
                if (!more)
                {
                    _text.Expect("}");
                }
            }
            Close(table);
            return table;
        }

        private void Close(object item)
        {
            _closed.Add(item);
            foreach (object? inner in (item as Dictionary<string, object?>)?.Values ?? Enumerable.Empty<object?>())
            {
                if (inner is Dictionary<string, object?>)
                {
                    Close(inner);
                }
            }
        }
    }
}
