#nullable enable
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    [TestFixture]
    public class QuotingTests
    {
        [TestCase("plain", "plain")]
        [TestCase("", "\"\"")]
        [TestCase("C:\\My Games\\", "\"C:\\My Games\\\\\"")]
        [TestCase("say \"hi\"", "\"say \\\"hi\\\"\"")]
        [TestCase("a\\\"b", "\"a\\\\\\\"b\"")]
        public void AsWindowsTakesApart(string argument, string quoted)
        {
            Assert.That(Quoting.Windows(argument), Is.EqualTo(quoted));
        }

        [TestCase("a b", "'a b'")]
        [TestCase("O'Brien", "'O'\\''Brien'")]
        [TestCase("", "''")]
        public void AsAShellTakesApart(string argument, string quoted)
        {
            Assert.That(Quoting.Shell(argument), Is.EqualTo(quoted));
        }
    }
}
