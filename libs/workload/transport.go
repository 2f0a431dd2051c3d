package workload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 60 * time.Second
	// pingAfter and pingTimeout find a peer that is gone without a word within half a minute, also below a silent stream.
	pingAfter   = 15 * time.Second
	pingTimeout = 15 * time.Second
	// maxIdlePerWorkload bounds idle HTTP/1.1 connections; over HTTP/2 there is one connection.
	maxIdlePerWorkload = 4
	maxResponseHeader  = 64 << 10
)

// Resolver says where a workload is now, as host:port. It is asked for each request, so it answers from memory. An error means that
// no request reaches the workload, over connections that stand already neither.
type Resolver interface {
	Resolve(ctx context.Context, want Identity) (addr string, err error)
}

// Addresses is a Resolver of fixed addresses.
type Addresses map[Identity]string

// Resolve implements Resolver.
func (a Addresses) Resolve(_ context.Context, want Identity) (string, error) {
	addr, ok := a[want]
	if !ok {
		return "", fmt.Errorf("no address is known for %s: check this process's list of peers", want)
	}
	return addr, nil
}

// TransportConfig is what a Transport needs; all of it.
type TransportConfig struct {
	// Source is the caller's own keypair.
	Source *Source
	// Anchors say whom to trust.
	Anchors Anchors
	// Resolver says where workloads are.
	Resolver Resolver
}

// Transport is the http.RoundTripper from workload to workload. The URL's host says who is wanted, by pseudo-host
// (`https://` + Identity.ServerName()); any other host, scheme or port is refused.
//
// http.Transport reuses connections by address, whatever name was expected behind it. Here each identity has connections of its
// own, made to the address that the Resolver gave and proven to be that identity, so that an address that now belongs to another
// tenant is a closed door. When the address, the roots or the caller's own certificate change, new requests go over new connections, and old
// ones end with the last request on them: nothing is cut off, and no connection outlives the certificate it began with for long.
type Transport struct {
	config TransportConfig

	mu sync.RWMutex
	// pools are by pseudo-host, so that who is wanted is read once and not for each request.
	pools map[string]pool
}

// pool is the connections to one identity at one address, under one certificate of our own and the roots that proved the other's.
type pool struct {
	want  Identity
	addr  string
	leaf  *x509.Certificate
	roots *x509.CertPool
	http  *http.Transport
}

func (p pool) serves(addr string, leaf *x509.Certificate, roots *x509.CertPool) bool {
	return p.http != nil && p.addr == addr && p.leaf == leaf && p.roots == roots
}

// NewTransport makes a Transport. It makes no connection yet.
func NewTransport(config TransportConfig) (*Transport, error) {
	if config.Source == nil || config.Anchors == nil || config.Resolver == nil {
		return nil, errors.New("make a transport: it needs a keypair, the roots to trust and a resolver")
	}
	return &Transport{config: config, pools: make(map[string]pool)}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	connections, err := t.route(request)
	if err != nil {
		// A RoundTripper closes the body, also when it fails.
		if request.Body != nil {
			_ = request.Body.Close()
		}
		return nil, err
	}
	return connections.RoundTrip(request)
}

// CloseIdleConnections closes the connections that no request is using.
func (t *Transport) CloseIdleConnections() {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, p := range t.pools {
		p.http.CloseIdleConnections()
	}
}

func (t *Transport) route(request *http.Request) (*http.Transport, error) {
	if request.URL == nil || request.URL.Scheme != "https" || request.URL.Port() != "" {
		return nil, errors.New("workloads are called at https://<pseudo-host>, without a port")
	}
	host := request.URL.Hostname()
	t.mu.RLock()
	p, known := t.pools[host]
	t.mu.RUnlock()
	if !known {
		var err error
		if p.want, err = ParseServerName(host); err != nil {
			return nil, err
		}
	}
	addr, err := t.config.Resolver.Resolve(request.Context(), p.want)
	if err != nil {
		t.forget(host)
		return nil, fmt.Errorf("find %s: %w", p.want, err)
	}
	roots, err := anchored(t.config.Anchors, p.want)
	if err != nil {
		t.forget(host)
		return nil, err
	}
	leaf := t.config.Source.Leaf()
	if p.serves(addr, leaf, roots) {
		return p.http, nil
	}
	return t.renew(host, pool{want: p.want, addr: addr, leaf: leaf, roots: roots}), nil
}

// renew replaces a pseudo-host's pool. The old one isn't closed: requests may be under way on it; its connections close when they
// were idle for a minute.
func (t *Transport) renew(host string, p pool) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other := t.pools[host]; other.serves(p.addr, p.leaf, p.roots) {
		return other.http
	}
	p.http = t.connections(p.want, p.addr)
	t.pools[host] = p
	return p.http
}

func (t *Transport) forget(host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.pools[host]; ok {
		p.http.CloseIdleConnections()
		delete(t.pools, host)
	}
}

func (t *Transport) connections(want Identity, addr string) *http.Transport {
	return &http.Transport{
		Proxy: nil, // whatever the environment says: there is nobody between two workloads
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return t.dial(ctx, want, addr)
		},
		ForceAttemptHTTP2:      true, // a custom dialer switches it off otherwise
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		DisableCompression:     true, // Connect and gRPC have their own; a proxy must not change what it passes
		MaxIdleConnsPerHost:    maxIdlePerWorkload,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
}

func (t *Transport) dial(ctx context.Context, want Identity, addr string) (net.Conn, error) {
	config, err := ClientTLS(t.config.Source, t.config.Anchors, want)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	plain, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", want, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secured := tls.Client(plain, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		if cutOff(err) {
			// Whoever it was ended before it said who it is, as a process that is killed or restarts does. Nothing of a request has left.
			return nil, fmt.Errorf("connect to %s: %w", want, &net.OpError{Op: "dial", Net: "tcp", Addr: plain.RemoteAddr(), Err: err})
		}
		return nil, fmt.Errorf("connect to %s: who answers at %s is somebody else or can't prove to be it: %w", want, addr, err)
	}
	return secured, nil
}

// cutOff says that the connection ended, rather than that the other side was found to be wrong.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
