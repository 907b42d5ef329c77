#nullable enable
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace NpcRuntime.Wire
{
    /// <summary>Reads JSON (RFC 8259) into the same plain values as msgpack; for the ready line. Whole numbers become long.</summary>
    internal sealed class Json
    {
        private const int MaxDepth = 32;
        private readonly string _text;
        private int _at;

        private Json(string text) => _text = text;

        /// <exception cref="NpcException">BadInput: not one JSON value.</exception>
        internal static object? Parse(string text)
        {
            var json = new Json(text);
            object? value = json.Value(0);
            json.Space();
            return json._at == text.Length ? value : throw json.Wrong("the end");
        }

        private object? Value(int depth)
        {
            Space();
            if (depth > MaxDepth || _at == _text.Length)
            {
                throw Wrong("a value");
            }
            switch (_text[_at])
            {
                case '{': return Map(depth);
                case '[': return List(depth);
                case '"': return String();
                case 't': return Word("true", true);
                case 'f': return Word("false", false);
                case 'n': return Word("null", null);
                default: return Number();
            }
        }

        private Dictionary<string, object?> Map(int depth)
        {
            var map = new Dictionary<string, object?>();
            _at++;
            for (bool first = true; !Skips('}'); first = false)
            {
                if (!first)
                {
                    Expect(',');
                    Space();
                }
                string key = String();
                Expect(':');
                map[key] = Value(depth + 1);
            }
            return map;
        }

        private List<object?> List(int depth)
        {
            var list = new List<object?>();
            _at++;
            for (bool first = true; !Skips(']'); first = false)
            {
                if (!first)
                {
                    Expect(',');
                }
                list.Add(Value(depth + 1));
            }
            return list;
        }

        private string String()
        {
            var text = new StringBuilder();
            Expect('"');
            while (_at < _text.Length && _text[_at] != '"')
            {
                char one = _text[_at++];
                if (one < ' ')
                {
                    throw Wrong("no control character in a string");
                }
                text.Append(one == '\\' ? Escape() : one);
            }
            Expect('"');
            return text.ToString();
        }

        private char Escape()
        {
            char one = _at < _text.Length ? _text[_at++] : '\0';
            switch (one)
            {
                case '"':
                case '\\':
                case '/': return one;
                case 'b': return '\b';
                case 'f': return '\f';
                case 'n': return '\n';
                case 'r': return '\r';
                case 't': return '\t';
                case 'u' when _at + 4 <= _text.Length
                    && ushort.TryParse(_text.Substring(_at, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort unit):
                    _at += 4;
                    return (char)unit;
                default: throw Wrong("an escape");
            }
        }

        private object Number()
        {
            int start = _at;
            while (_at < _text.Length && "+-.eE0123456789".IndexOf(_text[_at]) >= 0)
            {
                _at++;
            }
            string text = _text.Substring(start, _at - start);
            if (long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long whole))
            {
                return whole;
            }
            bool good = double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double real);
            return good ? real : throw Wrong("a number");
        }

        private object? Word(string word, object? value)
        {
            if (string.CompareOrdinal(_text, _at, word, 0, word.Length) != 0)
            {
                throw Wrong(word);
            }
            _at += word.Length;
            return value;
        }

        private bool Skips(char one)
        {
            Space();
            bool there = _at < _text.Length && _text[_at] == one;
            _at += there ? 1 : 0;
            return there;
        }

        private void Expect(char one)
        {
            if (!Skips(one))
            {
                throw Wrong($"`{one}`");
            }
        }

        private void Space()
        {
            while (_at < _text.Length && " \t\r\n".IndexOf(_text[_at]) >= 0)
            {
                _at++;
            }
        }

        private NpcException Wrong(string expected) => new NpcException(NpcErrorCode.BadInput, $"not JSON: expected {expected} at character {_at}");
    }
}
