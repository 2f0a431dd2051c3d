package front

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/workload"
)

const (
	plane   = "dev"
	domain  = "localhost"
	slug    = "bench"
	host    = slug + "." + domain
	service = "discovery"

	private = 0o600
)

// world is a plane with one tenant whose service is this process: files of certificates, and a snapshot that leads there.
type world struct {
	dir string
	// web is the certificate that clients see, PEM.
	web []byte
	// listen is where each proxy listens.
	listen map[string]string

	upstream *upstream
	server   *http.Server
	address  string
	identity workload.Identity
}

func newWorld(dir string) (*world, error) {
	w := &world{dir: dir, listen: map[string]string{}, upstream: &upstream{},
		identity: workload.Identity{Plane: plane, Tenant: id.NewTenant(), Service: service}}
	roots := map[string][]byte{}
	for _, who := range []workload.Identity{w.identity, {Plane: plane, Service: "gateway"}} {
		root, err := workload.NewRoot(who.TrustDomain(), time.Now())
		if err != nil {
			return nil, err
		}
		issuing, err := root.NewIntermediate(time.Now())
		if err != nil {
			return nil, err
		}
		pair, err := issuing.IssueKeypair(who, time.Now())
		if err != nil {
			return nil, err
		}
		if err := os.Mkdir(w.file(who.Service), 0o700); err != nil {
			return nil, err
		}
		if err := pair.Save(w.file(who.Service)); err != nil {
			return nil, err
		}
		roots[who.Service] = root.CertificatePEM()
		if err := os.WriteFile(w.file(who.Service+"-roots.pem"), root.CertificatePEM(), private); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"gateway", "haproxy"} {
		addr, err := freeAddress()
		if err != nil {
			return nil, err
		}
		w.listen[name] = addr
	}
	if err := w.serve(roots); err != nil {
		return nil, err
	}
	if err := w.certificate(); err != nil {
		return nil, err
	}
	return w, w.snapshot(roots[service])
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

func (w *world) close() { _ = w.server.Close() }

// serve listens as the tenant's service does.
func (w *world) serve(roots map[string][]byte) error {
	source, err := workload.OpenSource(w.file(service), w.identity)
	if err != nil {
		return err
	}
	trust := workload.Trust{Plane: plane, Tenant: w.identity.Tenant}
	if trust.TenantRoots, err = workload.ParseRoots(w.identity.TrustDomain(), roots[service]); err != nil {
		return err
	}
	if trust.PlaneRoots, err = workload.ParseRoots(workload.TrustDomain{Plane: plane}, roots["gateway"]); err != nil {
		return err
	}
	config, err := workload.ServerTLS(source, trust)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback answers at once
	if err != nil {
		return err
	}
	w.address = l.Addr().String()
	const patience = 10 * time.Second
	w.server = &http.Server{Handler: w.upstream, TLSConfig: config, ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = w.server.ServeTLS(l, "", "") }()
	return nil
}

// certificate makes what clients see: certificate and key in files of their own, and in one for HAProxy.
func (w *world) certificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	w.web = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for name, text := range map[string][]byte{"web.pem": w.web, "web-key.pem": keyPEM, "web-both.pem": append(append([]byte{}, w.web...), keyPEM...)} {
		if err := os.WriteFile(w.file(name), text, private); err != nil {
			return err
		}
	}
	return nil
}

// snapshot writes what the gateway routes by, from which it starts while there is no registry.
func (w *world) snapshot(roots []byte) error {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := snapshot.NewSigner(plane, key)
	if err != nil {
		return err
	}
	signed, err := signer.Sign(&registryv1.Snapshot{Plane: plane, Version: 1, SignedAt: timestamppb.Now(), Routes: []*registryv1.Route{{
		Slug: slug, TenantId: w.identity.Tenant.String(), CaCertificatesPem: string(roots),
		Components: []*registryv1.Component{{Name: service, Address: w.address, PathPrefixes: []string{"/a3os.discovery.v1."}}},
	}}})
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(signed)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.file("snapshot"), raw, private); err != nil {
		return err
	}
	return os.WriteFile(w.file("snapshot.key"), []byte(snapshot.FormatPublicKey(public)), private)
}

func (w *world) gatewayCommand(ctx context.Context, program string) (*exec.Cmd, error) {
	key, err := os.ReadFile(w.file("snapshot.key"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("there is no %s: build it with make build", program)
	}
	nowhere, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "gateway") //nolint:gosec // the program is ours
	cmd.Env = []string{"A3_PLANE=" + plane, "A3_LISTEN=" + w.listen["gateway"], "A3_CERT_DIR=" + w.file("gateway"), "A3_PLANE_ROOTS=" + w.file("gateway-roots.pem"),
		"A3_DOMAIN=" + domain, "A3_TLS_CERT=" + w.file("web.pem"), "A3_TLS_KEY=" + w.file("web-key.pem"), "A3_REGISTRY=" + nowhere,
		"A3_SNAPSHOT=" + w.file("snapshot"), "A3_SNAPSHOT_KEYS=" + strings.TrimSpace(string(key)), "A3_LOG_LEVEL=error"}
	return cmd, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback answers at once
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
