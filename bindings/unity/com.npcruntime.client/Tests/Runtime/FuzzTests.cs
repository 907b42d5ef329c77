#nullable enable
using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using NpcRuntime.Wire;
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    /// <summary>Bytes of a peer gone wrong: only NpcException may come of them, quickly and without much memory.</summary>
    [TestFixture]
    public class FuzzTests
    {
        private static readonly byte[] Sound = MsgPackWriter.Pack(new Dictionary<string, object?>
        {
            ["id"] = 5L, ["ev"] = "done", ["text"] = "é € 𝄞 and more", ["tokens"] = new Dictionary<string, object?> { ["read"] = 1 },
            ["list"] = new List<object?> { 1.5, null, true, new byte[] { 1, 2 }, -70000L, "a" },
        });

        [Test]
        public void EveryTruncationIsRefused()
        {
            for (int length = 0; length < Sound.Length; length++)
            {
                Assert.That(Read(Sound.Take(length).ToArray()), Is.Not.Null, $"{length} bytes");
            }
        }

        [Test]
        public void EveryBitFlipIsReadOrRefused()
        {
            int refused = 0;
            for (int bit = 0; bit < 8 * Sound.Length; bit++)
            {
                byte[] broken = (byte[])Sound.Clone();
                broken[bit / 8] ^= (byte)(1 << (bit % 8));
                refused += Read(broken) == null ? 0 : 1;
            }
            Assert.That(refused, Is.GreaterThan(8));
        }

        [Test]
        public void RandomBytesAreReadOrRefused()
        {
            var random = new Random(1);
            for (int round = 0; round < 20_000; round++)
            {
                var bytes = new byte[random.Next(1, 64)];
                random.NextBytes(bytes);
                Read(bytes);
                Delta(bytes);
                Delta(new byte[] { 0x83 }.Concat(Sound.Skip(1)).ToArray());
            }
        }

        [TestCase("dfffffffff", Description = "a map of 4 billion entries")]
        [TestCase("ddffffffff", Description = "a list of 4 billion entries")]
        [TestCase("dbffffffff", Description = "a text of 4 GiB")]
        [TestCase("c6ffffffff", Description = "4 GiB of binary data")]
        [TestCase("c7010000", Description = "an extension")]
        public void EmptyPromisesAreRefusedAtOnce(string hex)
        {
            Assert.That(Read(VectorTests.Bytes(hex)), Is.Not.Null);
        }

        [Test]
        public void NestingIsBounded()
        {
            Assert.That(Read(Enumerable.Repeat((byte)0x91, 100_000).ToArray()), Contains.Substring("nested"));
            var inside = new List<object?>();
            inside.Add(inside);
            Assert.Throws<NpcException>(() => MsgPackWriter.Pack(inside));
        }

        [TestCase("HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak ZMTP")]
        [TestCase("\u00ff12345678X", "does not speak ZMTP")]
        [TestCase("\u00ff12345678\u007f\u0001\u0000", "ZMTP 1")]
        public void OtherProtocolsAreRefused(string greeting, string told)
        {
            Assert.That(Shake(Latin1(greeting)), Contains.Substring(told));
        }

        [Test]
        public void AnotherMechanismIsRefusedWithAWayOut()
        {
            byte[] greeting = Zmtp.Greeting();
            Encoding.ASCII.GetBytes("CURVE").CopyTo(greeting, 12);
            Assert.That(Shake(greeting), Contains.Substring("CURVE"));
        }

        [TestCase("00", "61", "before the handshake")]
        [TestCase("01", "61", "several frames")]
        [TestCase("80", "61", "flags")]
        [TestCase("04", "", "without a name")]
        [TestCase("04", "0541", "without a name")]
        [TestCase("04", "055245414459", "unexpected command")]
        public void HandshakesGoneWrongAreRefused(string flags, string body, string told)
        {
            byte[] frame = VectorTests.Bytes(flags).Append((byte)(body.Length / 2)).Concat(VectorTests.Bytes(body)).ToArray();
            Assert.That(Shake(Zmtp.Greeting(), frame), Contains.Substring(told));
        }

        [Test]
        public void AFrameTooLongIsRefusedByItsHead()
        {
            Assert.That(Shake(Zmtp.Greeting(), VectorTests.Bytes("027fffffffffffffff")), Contains.Substring("at most"));
            Assert.That(Shake(Zmtp.Greeting(), VectorTests.Bytes("02ffffffffffffffff")), Contains.Substring("at most"));
        }

        [Test]
        public void RandomBytesAfterTheGreetingNeverBreakTheReader()
        {
            var random = new Random(2);
            for (int round = 0; round < 5_000; round++)
            {
                var bytes = new byte[random.Next(1, 200)];
                random.NextBytes(bytes);
                Shake(Zmtp.Greeting(), bytes);
            }
        }

        [Test]
        public void MessagesArriveWholeHoweverTheyAreCut()
        {
            byte[][] bodies = { new byte[0], new byte[255], new byte[256], Enumerable.Range(0, 300_000).Select(i => (byte)i).ToArray(), Sound };
            byte[] stream = bodies.SelectMany(Zmtp.Message).ToArray();
            var random = new Random(3);
            Zmtp zmtp = Open();
            var came = new List<byte[]>();
            for (int at = 0; at < stream.Length;)
            {
                int size = Math.Min(random.Next(1, 9000), stream.Length - at);
                zmtp.Feed(stream.AsSpan(at, size));
                at += size;
                while (zmtp.TryNext(out ReadOnlyMemory<byte> body))
                {
                    came.Add(body.ToArray());
                }
            }
            Assert.That(came, Is.EqualTo(bodies));
        }

        private static byte[] Latin1(string text) => text.Select(one => (byte)one).ToArray();

        private static Zmtp Open()
        {
            var zmtp = new Zmtp("x", 1 << 20);
            zmtp.Feed(Zmtp.Greeting());
            zmtp.Feed(VectorTests.Bytes("04080757454c434f4d45"));
            zmtp.Feed(VectorTests.Bytes("0406055245414459"));
            Assert.That(zmtp.TryNext(out _), Is.False);
            Assert.That(zmtp.IsOpen, Is.True);
            return zmtp;
        }

        /// <summary>What is said of bytes in a handshake; empty when nothing.</summary>
        private static string Shake(params byte[][] chunks)
        {
            var zmtp = new Zmtp("x", 1 << 20);
            try
            {
                foreach (byte[] chunk in chunks)
                {
                    zmtp.Feed(chunk);
                    zmtp.TryNext(out _);
                }
                return "";
            }
            catch (NpcException error)
            {
                return error.Message;
            }
        }

        private static void Delta(byte[] frame)
        {
            try
            {
                Event.TryDelta(frame, out _, out _);
            }
            catch (NpcException error)
            {
                Assert.That(error.Kind, Is.EqualTo(NpcErrorCode.BadFrame));
            }
        }

        /// <summary>What is said of a frame; null when it can be read.</summary>
        private static string? Read(byte[] frame)
        {
            try
            {
                Event.Read(frame);
                return null;
            }
            catch (NpcException error)
            {
                return error.Message;
            }
        }
    }
}
