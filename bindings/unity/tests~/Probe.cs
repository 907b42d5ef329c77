#nullable enable
using System;
using System.Collections.Generic;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime.Probe
{
    /// <summary>What tests/test_unity.py runs against a real daemon. Results go to stdout as hex of msgpack; a failure exits with 1.</summary>
    internal static class Probe
    {
        private static async Task<int> Main(string[] arguments)
        {
            var rest = new ArraySegment<string>(arguments, 1, arguments.Length - 1);
            try
            {
                switch (arguments[0])
                {
                    case "toml": Print(TomlFiles.Read(rest)); break;
                    case "codes": Print(Codes()); break;
                    case "script": Print(await Script.Run(arguments[1], arguments[2], arguments[3])); break;
                    case "converse": Print(await Conversation.Run(rest)); break;
                    case "garbage": Print(await Garbage.Measure(long.Parse(arguments[1]))); break;
                    default: throw new ArgumentException(arguments[0]);
                }
                return 0;
            }
            catch (NpcException error)
            {
                Console.Error.WriteLine(error.Told + "\n" + error.StackTrace);
                return 1;
            }
        }

        private static Dictionary<string, object?> Codes()
        {
            var codes = new Dictionary<string, object?>();
            foreach (NpcErrorCode kind in Enum.GetValues(typeof(NpcErrorCode)))
            {
                codes[NpcException.Spelled(kind)] = kind.ToString();
            }
            return codes;
        }

        private static void Print(object value) => Console.WriteLine(BitConverter.ToString(MsgPackWriter.Pack(value)).Replace("-", ""));
    }
}
