package workload

import (
	"crypto/tls"
	"errors"
	"fmt"

	"google.golang.org/grpc/credentials"
)

// ServerTLS is the configuration of a server that workloads call with a certificate and users without one. A certificate that is
// presented must prove a trusted identity with Peer, else the handshake fails: none is tolerated, a bad one isn't.
func ServerTLS(source *Source, anchors Anchors) (*tls.Config, error) {
	if source == nil || anchors == nil {
		return nil, errors.New("configure TLS of a server: it needs a keypair and the roots it trusts")
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: source.GetCertificate,
		// crypto/tls verifies against one pool for all comers. Which roots count depends on who the peer claims to be, so it only
		// asks, and VerifyConnection verifies, within the handshake and on every one.
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, _, err := Peer(state, anchors)
			return err
		},
		// A resumed session would stand on a certificate that was verified once, possibly under roots that are gone.
		SessionTicketsDisabled: true,
	}, nil
}

// ClientTLS is the configuration of a client that talks to one workload and to nobody else: the chain must lead to a root of that
// workload's trust domain, the pseudo-host must match and the URI SAN must be the identity that is wanted.
func ClientTLS(source *Source, anchors Anchors, want Identity) (*tls.Config, error) {
	if source == nil {
		return nil, errors.New("configure TLS of a client: it needs a keypair")
	}
	if err := want.Validate(); err != nil {
		return nil, fmt.Errorf("configure TLS of a client: %w", err)
	}
	roots, err := anchored(anchors, want)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{"h2", "http/1.1"},
		GetClientCertificate: source.GetClientCertificate,
		RootCAs:              roots,
		ServerName:           want.ServerName(),
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.VerifiedChains) == 0 {
				return fmt.Errorf("the server was not verified, want %s", want)
			}
			got, err := FromCertificate(state.PeerCertificates[0])
			if err != nil {
				return fmt.Errorf("read the server's identity: %w", err)
			}
			if got != want {
				return fmt.Errorf("the server is %s, want %s: check the route to it", got, want)
			}
			return nil
		},
	}, nil
}

// GRPCServerCredentials is ServerTLS for a grpc-go server that has no users: a caller without a certificate fails the handshake.
// Set keepalive.ServerParameters.MaxConnectionAge (an hour, say) beside it: a connection is authenticated by the certificate it
// began with, and must not outlive it.
func GRPCServerCredentials(source *Source, anchors Anchors) (credentials.TransportCredentials, error) {
	config, err := ServerTLS(source, anchors)
	if err != nil {
		return nil, err
	}
	config.ClientAuth = tls.RequireAnyClientCert
	config.NextProtos = []string{"h2"}
	takingTurns(config, handshakesAtOnce)
	return credentials.NewTLS(config), nil
}

// GRPCClientCredentials is ClientTLS for a grpc-go client of one workload. The target's address can be anything that leads there.
func GRPCClientCredentials(source *Source, anchors Anchors, want Identity) (credentials.TransportCredentials, error) {
	config, err := ClientTLS(source, anchors, want)
	if err != nil {
		return nil, err
	}
	config.NextProtos = []string{"h2"}
	return credentials.NewTLS(config), nil
}
