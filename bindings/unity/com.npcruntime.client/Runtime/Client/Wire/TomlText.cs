#nullable enable
using System;
using System.Globalization;
using System.Linq;
using System.Text;

namespace NpcRuntime.Wire
{
    /// <summary>The letters of a TOML file: keys, strings, numbers, blanks.</summary>
    internal sealed class TomlText
    {
        private readonly string _text;
        private int _at;

        internal TomlText(string text) => _text = text.TrimStart('\uFEFF').Replace("\r\n", "\n");

        internal bool AtEnd => _at >= _text.Length;

        /// <summary>The next letter; NUL at the end.</summary>
        internal char Peek => AtEnd ? '\0' : _text[_at];

        internal NpcException Wrong(string expected)
        {
            int line = 1 + _text.Take(Math.Min(_at, _text.Length)).Count(one => one == '\n');
            return new NpcException(
                NpcErrorCode.BadPersona, $"line {line} is not TOML: expected {expected}", "personas/README.md shows every field by example");
        }

        internal bool Skips(string mark)
        {
            bool there = string.CompareOrdinal(_text, _at, mark, 0, mark.Length) == 0;
            _at += there ? mark.Length : 0;
            return there;
        }

        internal void Expect(string mark)
        {
            if (!Skips(mark))
            {
                throw Wrong($"`{mark}`");
            }
        }

        internal void SkipSpace()
        {
            while (Peek == ' ' || Peek == '\t')
            {
                _at++;
            }
        }

        /// <summary>Skips spaces, comments and line breaks.</summary>
        internal void SkipBlank()
        {
            SkipSpace();
            while (Peek == '#' || Peek == '\n')
            {
                Comment();
                _at += Peek == '\n' ? 1 : 0;
                SkipSpace();
            }
        }

        internal void EndOfLine()
        {
            SkipSpace();
            Comment();
            if (!AtEnd)
            {
                Expect("\n");
            }
        }

        /// <summary>One part of a key, bare or quoted.</summary>
        internal string Key()
        {
            if (Peek == '"' || Peek == '\'')
            {
                return Skips("\"\"\"") || Skips("'''") ? throw Wrong("a key on one line") : String();
            }
            int start = _at;
            while (IsBare(Peek))
            {
                _at++;
            }
            return _at > start ? _text.Substring(start, _at - start) : throw Wrong("a key");
        }

        /// <summary>A string of any of the four kinds.</summary>
        internal string String()
        {
            if (Skips("\"\"\"") || Skips("'''"))
            {
                return Lines(_text[_at - 1]);
            }
            char quote = Peek;
            var value = new StringBuilder();
            _at++;
            while (Peek != quote)
            {
                value.Append(Letter(quote == '"', false));
            }
            _at++;
            return value.ToString();
        }

        /// <summary>A boolean or a number.</summary>
        internal object Scalar()
        {
            int start = _at;
            while (IsBare(Peek) || Peek == '+' || Peek == '.')
            {
                _at++;
            }
            string word = _text.Substring(start, _at - start);
            switch (word)
            {
                case "true": return true;
                case "false": return false;
                case "inf":
                case "+inf": return double.PositiveInfinity;
                case "-inf": return double.NegativeInfinity;
                case "nan":
                case "+nan":
                case "-nan": return double.NaN;
                default: return Number(word);
            }
        }

        private static bool IsBare(char one) =>
            (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z') || (one >= '0' && one <= '9') || one == '_' || one == '-';

        private static bool IsDigit(char one) => one >= '0' && one <= '9';

        private void Comment()
        {
            if (Peek != '#')
            {
                return;
            }
            for (; !AtEnd && Peek != '\n'; _at++)
            {
                if (char.IsControl(Peek) && Peek != '\t' && Peek < 0x80)
                {
                    throw Wrong("no control character in a comment");
                }
            }
        }

        private string Lines(char quote)
        {
            var value = new StringBuilder();
            string end = new string(quote, 3);
            Skips("\n");
            while (!Skips(end))
            {
                value.Append(Letter(quote == '"', true));
            }
            for (int extra = 0; extra < 2 && Peek == quote; extra++, _at++)
            {
                value.Append(quote); // up to two quotes may stand before the three that end
            }
            return value.ToString();
        }

        private string Letter(bool escapes, bool lines)
        {
            char one = Peek;
            if (AtEnd || (one == '\n' ? !lines : one != '\t' && (one < ' ' || one == 0x7F)))
            {
                throw Wrong("the end of a string");
            }
            _at++;
            return one != '\\' || !escapes ? one.ToString() : Escape(lines);
        }

        private string Escape(bool lines)
        {
            char one = Peek;
            _at++;
            switch (one)
            {
                case 'b': return "\b";
                case 't': return "\t";
                case 'n': return "\n";
                case 'f': return "\f";
                case 'r': return "\r";
                case '"':
                case '\\': return one.ToString();
                case 'u': return CodePoint(4);
                case 'U': return CodePoint(8);
            }
            _at--;
            return lines ? Folded() : throw Wrong("an escape");
        }

        /// <summary>A backslash at a line's end: it and all blanks up to the next letter vanish.</summary>
        private string Folded()
        {
            SkipSpace();
            if (Peek != '\n')
            {
                throw Wrong("an escape");
            }
            while (Peek == '\n' || Peek == ' ' || Peek == '\t')
            {
                _at++;
            }
            return "";
        }

        private string CodePoint(int digits)
        {
            string code = _text.Substring(_at, Math.Min(digits, _text.Length - _at));
            bool good = code.Length == digits && int.TryParse(code, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int point)
                && point >= 0 && point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
            _at += good ? digits : 0;
            return good ? char.ConvertFromUtf32(int.Parse(code, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture)) : throw Wrong("a code point");
        }

        private object Number(string word)
        {
            string digits = Ungrouped(word);
            string plain = digits.TrimStart('+', '-');
            if (digits.Length - plain.Length > 1 || plain.Length == 0)
            {
                throw Wrong("a value");
            }
            if (plain.Length > 2 && plain[0] == '0' && "xob".IndexOf(plain[1]) >= 0)
            {
                return Based(plain, digits);
            }
            bool zero = plain.Length > 1 && plain[0] == '0' && IsDigit(plain[1]);
            if (!zero && plain.All(IsDigit))
            {
                bool fits = long.TryParse(digits, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long whole);
                return fits ? whole : throw Wrong("an integer of 64 bits");
            }
            return !zero && IsReal(plain) ? double.Parse(digits, NumberStyles.Float, CultureInfo.InvariantCulture) : throw Wrong("a value");
        }

        private static bool IsReal(string plain)
        {
            int e = plain.IndexOfAny(new[] { 'e', 'E' });
            string[] parts = (e < 0 ? plain : plain.Substring(0, e)).Split('.');
            string power = e < 0 ? "0" : plain.Substring(e + 1);
            power = power.StartsWith("+", StringComparison.Ordinal) || power.StartsWith("-", StringComparison.Ordinal) ? power.Substring(1) : power;
            return parts.Length <= 2 && parts.All(part => part.Length > 0 && part.All(IsDigit)) && power.Length > 0 && power.All(IsDigit);
        }

        private object Based(string plain, string digits)
        {
            int shift = plain[1] == 'x' ? 16 : plain[1] == 'o' ? 8 : 2;
            try
            {
                return plain == digits ? Convert.ToInt64(plain.Substring(2), shift) : throw Wrong("no sign here");
            }
            catch (Exception error) when (error is FormatException || error is OverflowException || error is ArgumentException)
            {
                throw Wrong("an integer");
            }
        }

        /// <summary>Digits without the underscores that may stand between two of them.</summary>
        private string Ungrouped(string word)
        {
            for (int i = word.IndexOf('_'); i >= 0; i = word.IndexOf('_', i + 1))
            {
                if (i == 0 || i == word.Length - 1 || !Uri.IsHexDigit(word[i - 1]) || !Uri.IsHexDigit(word[i + 1]))
                {
                    throw Wrong("digits around `_`");
                }
            }
            return word.Replace("_", "");
        }
    }
}
