#nullable enable
using System;
using System.Globalization;
using System.Net;

namespace NpcRuntime
{
    /// <summary>Where a daemon listens: <c>tcp://HOST:PORT</c>.</summary>
    internal static class Endpoint
    {
        /// <exception cref="NpcException">BadConfig: no such form, or a host that is not this machine.</exception>
        internal static void Parse(string endpoint, out string host, out int port)
        {
            const string Scheme = "tcp://";
            int colon = endpoint.LastIndexOf(':');
            if (!endpoint.StartsWith(Scheme, StringComparison.Ordinal) || colon < Scheme.Length
                || !int.TryParse(endpoint.Substring(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out port)
                || port < 1 || port > 65535)
            {
                throw new NpcException(
                    NpcErrorCode.BadConfig, $"`{endpoint}` must be tcp://HOST:PORT", "The ready line of the daemon tells its endpoint");
            }
            host = endpoint.Substring(Scheme.Length, colon - Scheme.Length).Trim('[', ']');
            bool loopback = host == "localhost" || (IPAddress.TryParse(host, out IPAddress? address) && IPAddress.IsLoopback(address));
            if (!loopback)
            {
                throw new NpcException(
                    NpcErrorCode.BadConfig,
                    $"`{endpoint}` is another machine, whose daemon demands CURVE, which this client does not speak",
                    "Reach it through a tunnel (SSH, WireGuard) that ends at a loopback address, or use the Python client");
            }
        }
    }
}
