#nullable enable
using System.Collections.Generic;
using System.IO;
using NpcRuntime.Wire;

namespace NpcRuntime.Probe
{
    /// <summary>Files of TOML as our reader has them; text beginning with "error" where it refuses.</summary>
    internal static class TomlFiles
    {
        internal static List<object?> Read(IEnumerable<string> paths)
        {
            var read = new List<object?>();
            foreach (string path in paths)
            {
                try
                {
                    read.Add(Toml.Parse(File.ReadAllText(path)));
                }
                catch (NpcException error)
                {
                    read.Add("error: " + error.Message);
                }
            }
            return read;
        }
    }
}
