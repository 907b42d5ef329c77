#nullable enable
using System;
using System.Collections.Generic;
using System.ComponentModel;
using System.Diagnostics;
using System.IO;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>A daemon of our own: a child process, which also ends by itself when this process does.</summary>
    public sealed class NpcDaemon : IDisposable
    {
        private const int MaxLine = 1 << 16;
        private const int TailLines = 20;

        private readonly Process _process;
        private readonly Queue<string> _said = new Queue<string>();
        private readonly TaskCompletionSource<string> _line = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly Thread _reader;

        private NpcDaemon(Process process)
        {
            _process = process;
            Start("npc-runtime-stdout", ReadOut);
            _reader = Start("npc-runtime-stderr", ReadError);
        }

        /// <summary>Where it listens.</summary>
        public string Endpoint { get; private set; } = "";

        /// <summary>The key of this launch.</summary>
        public string Key { get; private set; } = "";

        /// <summary>Its process id.</summary>
        public int Pid => _process.Id;

        /// <summary>Whether the process has ended.</summary>
        public bool HasExited => _process.HasExited;

        /// <summary>The last lines that it wrote to stderr.</summary>
        public string Tail
        {
            get
            {
                lock (_said)
                {
                    return string.Join("\n", _said);
                }
            }
        }

        /// <summary>Starts a daemon and waits for its ready line.</summary>
        /// <exception cref="NpcException">DaemonMissing: no such program. DaemonFailed: it ended or was silent; says what it wrote.</exception>
        public static async Task<NpcDaemon> StartAsync(DaemonOptions options, CancellationToken cancellation = default)
        {
            if (options == null)
            {
                throw new ArgumentNullException(nameof(options));
            }
            cancellation.ThrowIfCancellationRequested();
            var daemon = new NpcDaemon(Launch(options));
            try
            {
                await daemon.Ready(options.Timeout, cancellation).ConfigureAwait(false);
                return daemon;
            }
            catch
            {
                daemon.Stop(TimeSpan.Zero);
                daemon.Dispose();
                throw;
            }
        }

        /// <summary>Waits for its own end for <paramref name="grace"/>, then ends it by force. Ask it to end by the verb <c>shutdown</c>.</summary>
        public void Stop(TimeSpan grace)
        {
            if (_process.WaitForExit((int)grace.TotalMilliseconds))
            {
                return;
            }
            try
            {
                _process.Kill();
            }
            catch (Exception error) when (error is InvalidOperationException || error is System.ComponentModel.Win32Exception)
            {
                return; // it has ended in this very moment; Mono says so by a Win32Exception
            }
            _process.WaitForExit();
        }

        /// <summary>Lets go of the process without ending it.</summary>
        public void Dispose() => _process.Dispose();

        private static Process Launch(DaemonOptions options)
        {
            if (options.Command.Count == 0)
            {
                throw new NpcException(NpcErrorCode.BadConfig, "`Command` must name the program npc-runtime");
            }
            var start = new ProcessStartInfo(options.Command[0])
            {
                UseShellExecute = false,
                CreateNoWindow = true,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                StandardOutputEncoding = Encoding.UTF8,
                StandardErrorEncoding = Encoding.UTF8,
                Arguments = Quoting.Joined(Arguments(options)),
            };
            foreach (KeyValuePair<string, string?> variable in options.Environment)
            {
                start.EnvironmentVariables[variable.Key] = variable.Value;
            }
            try
            {
                Process process = Process.Start(start) ?? throw new InvalidOperationException("nothing was started");
                process.StandardInput.Close();
                return process;
            }
            catch (Exception error) when (error is Win32Exception || error is InvalidOperationException || error is NotSupportedException)
            {
                throw new NpcException(
                    NpcErrorCode.DaemonMissing,
                    $"`{options.Command[0]}` could not be started: {error.Message}",
                    "Install npc-runtime (pip install its folder), name its program, or connect to one that runs already",
                    inner: error);
            }
        }

        private static List<string> Arguments(DaemonOptions options)
        {
            var call = new List<string>();
            for (int i = 1; i < options.Command.Count; i++)
            {
                call.Add(options.Command[i]);
            }
            using (Process self = Process.GetCurrentProcess())
            {
                call.AddRange(new[] { "serve", "--parent", self.Id.ToString(), "--backend", options.Backend });
            }
            if (options.Bundle != null)
            {
                call.AddRange(new[] { "--bundle", options.Bundle });
            }
            foreach (string folder in options.Personas)
            {
                call.AddRange(new[] { "--personas", folder });
            }
            call.AddRange(options.Options);
            return call;
        }

        private async Task Ready(TimeSpan timeout, CancellationToken cancellation)
        {
            Task first = await Task.WhenAny(_line.Task, Task.Delay(timeout, cancellation)).ConfigureAwait(false);
            cancellation.ThrowIfCancellationRequested();
            if (first != _line.Task)
            {
                throw Failed($"was not ready within {timeout.TotalSeconds:0.#} s");
            }
            string line = await _line.Task.ConfigureAwait(false);
            try
            {
                var ready = new Fields(Json.Parse(line) as Dictionary<string, object?> ?? new Dictionary<string, object?>());
                Endpoint = ready.Text("endpoint");
                Key = ready.Text("key");
            }
            catch (NpcException)
            {
                _reader.Join(2000); // what it wrote to stderr explains more than what it did not say
                throw Failed(line.Length == 0 ? "ended before it was ready" : "said something else than a ready line");
            }
        }

        private NpcException Failed(string how) => new NpcException(
            NpcErrorCode.DaemonFailed, $"the daemon {how}{(Tail.Length == 0 ? "" : ":\n" + Tail)}", "Run the same command in a terminal");

        private static Thread Start(string name, ThreadStart read)
        {
            var thread = new Thread(read) { Name = name, IsBackground = true };
            thread.Start();
            return thread;
        }

        /// <summary>Takes the ready line (an empty one when there is none), then reads on so that the daemon is never blocked.</summary>
        private void ReadOut()
        {
            try
            {
                StreamReader output = _process.StandardOutput;
                _line.TrySetResult(Line(output) ?? "");
                while (Line(output) != null)
                {
                }
            }
            catch (Exception error) when (error is IOException || error is ObjectDisposedException || error is InvalidOperationException)
            {
                _line.TrySetResult("");
            }
        }

        private void ReadError()
        {
            try
            {
                StreamReader output = _process.StandardError;
                while (Line(output) is string line)
                {
                    Keep(line);
                }
            }
            catch (Exception error) when (error is IOException || error is ObjectDisposedException || error is InvalidOperationException)
            {
                Keep($"(its stderr could not be read on: {error.Message})");
            }
        }

        private void Keep(string line)
        {
            lock (_said)
            {
                _said.Enqueue(line);
                if (_said.Count > TailLines)
                {
                    _said.Dequeue();
                }
            }
        }

        /// <summary>The next line, or its first 64 KiB; null at the end.</summary>
        private static string? Line(StreamReader output)
        {
            var line = new StringBuilder();
            for (int one = output.Read(); one != '\n' && line.Length < MaxLine; one = output.Read())
            {
                if (one < 0)
                {
                    return line.Length == 0 ? null : line.ToString();
                }
                line.Append((char)one);
            }
            return line.ToString();
        }
    }
}
