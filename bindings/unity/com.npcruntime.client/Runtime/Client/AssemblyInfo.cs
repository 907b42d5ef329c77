#nullable enable
using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("NpcRuntime.Client.Tests")]
[assembly: InternalsVisibleTo("NpcRuntime.Probe")]
[assembly: InternalsVisibleTo("NpcRuntime.Components.Tests")]
