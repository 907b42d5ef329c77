#nullable enable
using System.Collections.Generic;
using System.Text;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>Persona files: TOML as personas/README.md of npc-runtime shows it.</summary>
    public static class PersonaToml
    {
        /// <summary>Bytes of a persona file; a larger one is not parsed.</summary>
        public const int MaxBytes = 64 * 1024;

        /// <summary>The fields of a persona file, to spawn from. Whether they make a good Persona the daemon says when it spawns.</summary>
        /// <param name="toml">The file's text.</param>
        /// <exception cref="NpcException">BadPersona: not TOML (dates count as none), too large, or without <c>name</c> and <c>role</c>.</exception>
        public static IReadOnlyDictionary<string, object?> Read(string toml)
        {
            if (Encoding.UTF8.GetByteCount(toml) > MaxBytes)
            {
                throw new NpcException(NpcErrorCode.BadPersona, $"a persona file may hold {MaxBytes} bytes");
            }
            Dictionary<string, object?> table = Toml.Parse(toml);
            foreach (string field in new[] { "name", "role" })
            {
                if (!(table.TryGetValue(field, out object? value) && value is string))
                {
                    throw new NpcException(NpcErrorCode.BadPersona, $"`{field}` is missing, or not text", "personas/README.md shows every field by example");
                }
            }
            return table;
        }
    }
}
