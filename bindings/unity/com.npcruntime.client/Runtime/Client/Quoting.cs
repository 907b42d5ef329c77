#nullable enable
using System;
using System.Collections.Generic;
using System.IO;
using System.Text;

namespace NpcRuntime
{
    /// <summary>Arguments on one line, to be taken apart by the runtime that starts the process: Mono on Unix does it as a shell would.</summary>
    internal static class Quoting
    {
        private static readonly bool AsShell = Path.DirectorySeparatorChar == '/' && Type.GetType("Mono.Runtime") != null;

        internal static string Joined(IEnumerable<string> arguments)
        {
            var line = new StringBuilder();
            foreach (string argument in arguments)
            {
                line.Append(line.Length == 0 ? "" : " ").Append(AsShell ? Shell(argument) : Windows(argument));
            }
            return line.ToString();
        }

        /// <summary>Between single quotes nothing has a meaning but their end.</summary>
        internal static string Shell(string argument) => "'" + argument.Replace("'", "'\\''") + "'";

        /// <summary>As CommandLineToArgvW takes apart: backslashes have a meaning before quotes only.</summary>
        internal static string Windows(string argument)
        {
            if (argument.Length > 0 && argument.IndexOfAny(new[] { ' ', '\t', '\n', '\v', '"' }) < 0)
            {
                return argument;
            }
            var quoted = new StringBuilder("\"");
            int slashes = 0;
            foreach (char one in argument)
            {
                quoted.Append('\\', one == '"' ? slashes + 1 : 0);
                slashes = one == '\\' ? slashes + 1 : 0;
                quoted.Append(one);
            }
            return quoted.Append('\\', slashes).Append('"').ToString();
        }
    }
}
