#nullable enable
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Net;
using System.Net.Sockets;
using System.Threading;
using System.Threading.Tasks;
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    /// <summary>Connections that do not come about, and why.</summary>
    [TestFixture]
    public class ConnectTests
    {
        [TestCase("127.0.0.1:5555")]
        [TestCase("tcp://127.0.0.1")]
        [TestCase("tcp://127.0.0.1:0")]
        [TestCase("tcp://127.0.0.1:70000")]
        [TestCase("ipc:///tmp/x")]
        [TestCase("tcp://127.0.0.1:5555x")]
        public void AnEndpointMustBeOne(string endpoint)
        {
            Assert.That(Refusal(endpoint, "k").Kind, Is.EqualTo(NpcErrorCode.BadConfig));
        }

        [TestCase("tcp://192.168.0.1:5555")]
        [TestCase("tcp://example.com:5555")]
        [TestCase("tcp://[2001:db8::1]:5555")]
        public void AnotherMachineIsRefusedWithAWayOut(string endpoint)
        {
            NpcException error = Refusal(endpoint, "k");
            Assert.That((error.Kind, error.Message.Contains("CURVE"), error.Hint.Contains("tunnel")), Is.EqualTo((NpcErrorCode.BadConfig, true, true)));
        }

        [Test]
        public void AKeyIsNeeded()
        {
            Assert.That(Refusal("tcp://127.0.0.1:5555", "").Kind, Is.EqualTo(NpcErrorCode.WrongKey));
        }

        [Test]
        public void AWrongKeyIsTold()
        {
            using var daemon = new FakeDaemon();
            Assert.That(Refusal(daemon.Endpoint, "sesam").Kind, Is.EqualTo(NpcErrorCode.WrongKey));
        }

        [Test]
        public void NobodyThereIsTold()
        {
            var listener = new TcpListener(IPAddress.Loopback, 0);
            listener.Start();
            int port = ((IPEndPoint)listener.LocalEndpoint).Port;
            listener.Stop();
            NpcException error = Refusal($"tcp://127.0.0.1:{port}", "k");
            Assert.That((error.Kind, error.Message), Is.EqualTo((NpcErrorCode.ConnectionLost, "no daemon listens there")));
        }

        [Test]
        public void ASilentPeerIsGivenUp()
        {
            var listener = new TcpListener(IPAddress.Loopback, 0);
            listener.Start();
            string endpoint = $"tcp://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}";
            NpcException error = NpcClient.ConnectAsync(endpoint, "k", "", TimeSpan.FromMilliseconds(50)).Failure();
            listener.Stop();
            Assert.That((error.Kind, error.Message.Contains("in time")), Is.EqualTo((NpcErrorCode.ConnectionLost, true)));
        }

        [Test]
        public void ConnectingCanBeCancelled()
        {
            var listener = new TcpListener(IPAddress.Loopback, 0);
            listener.Start();
            using var cancel = new CancellationTokenSource();
            Task<NpcClient> connecting = NpcClient.ConnectAsync(
                $"tcp://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}", "k", "", null, cancel.Token);
            cancel.Cancel();
            Assert.Throws(Is.InstanceOf<OperationCanceledException>(), () => connecting.Get());
            listener.Stop();
        }

        [Test]
        public void ARefusedHelloIsTyped()
        {
            using var daemon = new FakeDaemon { Refusal = "protocol_version" };
            Assert.That(Refusal(daemon.Endpoint, FakeDaemon.Key).Kind, Is.EqualTo(NpcErrorCode.ProtocolVersion));
        }

        [Test]
        public void AMissingProgramIsTold()
        {
            var options = new DaemonOptions { Command = new[] { "no-such-program-anywhere" } };
            NpcException error = NpcClient.StartAsync(options).Failure();
            Assert.That((error.Kind, error.Message.Contains("no-such-program-anywhere")), Is.EqualTo((NpcErrorCode.DaemonMissing, true)));
        }

        [Test]
        public void ArgumentsReachTheProgramAsTheyAre()
        {
            if (!File.Exists("/bin/sh"))
            {
                Assert.Ignore("needs a shell to say what it was given");
            }
            string[] given = { "a b", "O'Brien", "$HOME", "back\\slash", "q\"uote", "", "\\\\" };
            var command = new List<string> { "/bin/sh", "-c", "printf '%s|' \"$@\" >&2", "sh" };
            command.AddRange(given);
            NpcException error = NpcDaemon.StartAsync(new DaemonOptions { Command = command }).Failure();
            Assert.That(error.Kind, Is.EqualTo(NpcErrorCode.DaemonFailed));
            Assert.That(error.Message, Contains.Substring(string.Join("|", given) + "|serve|--parent|"));
        }

        [Test]
        public void AProgramThatSaysNothingIsGivenUpAndEnded()
        {
            if (!File.Exists("/bin/sh"))
            {
                Assert.Ignore("needs a shell");
            }
            var options = new DaemonOptions
            {
                Command = new[] { "/bin/sh", "-c", "echo $$ >&2; exec sleep 60" }, Timeout = TimeSpan.FromMilliseconds(300),
            };
            NpcException error = NpcDaemon.StartAsync(options).Failure();
            Assert.That(error.Message, Contains.Substring("was not ready within"));
            int pid = int.Parse(error.Message.Substring(error.Message.IndexOf('\n') + 1));
            Assert.That(() => Process.GetProcessById(pid), Throws.ArgumentException);
        }

        private static NpcException Refusal(string endpoint, string key) => NpcClient.ConnectAsync(endpoint, key).Failure();
    }
}
