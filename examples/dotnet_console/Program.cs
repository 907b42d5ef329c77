// A character without a game engine: for servers, MonoGame, Stride, Godot C#. See README.md for how to run it.
#nullable enable
using System;
using System.Threading.Tasks;
using NpcRuntime;

internal static class Program
{
    private static async Task<int> Main(string[] command)
    {
        var options = new DaemonOptions { Timeout = TimeSpan.FromSeconds(60) };
        if (command.Length > 0)
        {
            options.Command = command;
        }
        try
        {
            await using NpcClient client = await NpcClient.StartAsync(options);
            await Talk(client);
            return 0;
        }
        catch (NpcException error)
        {
            Console.Error.WriteLine(error.Told);
            return 1;
        }
    }

    private static async Task Talk(NpcClient client)
    {
        Spawned marta = await client.SpawnAsync("marta", "marta", seed: 7);
        Console.WriteLine($"{marta.Name}: {marta.Opening?.Text}");
        await Say(client, "Hello. I'm Rowan.");

        byte[] mind = await client.SnapshotAsync("marta");
        await Say(client, "How much is a knife?");

        await client.RestoreAsync("marta", mind, replace: true);
        Console.WriteLine($"[back to where she was, {mind.Length} bytes; the same question again]");
        await Say(client, "How much is a knife?");
    }

    private static async Task Say(NpcClient client, string line)
    {
        Console.WriteLine($"> {line}");
        ReplyStream stream = client.Stream("marta", line, new SayOptions { MaxTokens = 24 });
        await foreach (Piece piece in stream)
        {
            Console.Write(piece.Mood == null ? piece.Text : $"({piece.Mood}) ");
        }
        Reply reply = await stream.Reply;
        Console.WriteLine(reply.Action == null ? "" : $" [{reply.Action}]");
    }
}
