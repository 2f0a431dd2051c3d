package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

func (o *oracle) with(change func(*integrationsv1.PostgresSettings)) *integrationsv1.Settings {
	s := proto.CloneOf(o.settings())
	change(s.GetPostgres())
	return s
}

func TestWrongPasswordIsPermanentAndSaysSo(t *testing.T) {
	o := newOracle(t, 15)
	_, err := New().Read(t.Context(), testSource(o.settings(), "guess"), nil, &collected{})
	if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
		t.Fatalf("Read answers %v, want a permanent error", err)
	}
	if !strings.Contains(err.Error(), `refuses the password of role "`+reader+`"`) || strings.Contains(err.Error(), "guess") {
		t.Errorf("the error is %q", err)
	}
}

func TestRotatedPasswordIsFetchedAgainOnce(t *testing.T) {
	o := newOracle(t, 15)
	source := testSource(o.settings(), "")
	asked := 0
	source.Secret = func(context.Context) (string, error) {
		asked++
		return []string{"yesterday's", readerPassword}[min(asked, 2)-1], nil
	}
	if _, err := New().Read(t.Context(), source, nil, &collected{}); err != nil {
		t.Fatal(err)
	}
	if asked != 2 {
		t.Errorf("the password was fetched %d times, want twice", asked)
	}
}

// Attack S44: the password is another one at the server, and in the store, while a run is reading. The next login is refused, the new
// one is fetched once, and the run ends as if nothing had been.
func TestPasswordRotatedInTheMiddleOfARunIsFetchedOnceAndTheRunGoesOn(t *testing.T) {
	o := newOracle(t, 15)
	o.fill(t)
	undisturbed := &collected{}
	if _, err := New().Read(t.Context(), testSource(o.settings(), readerPassword), nil, undisturbed); err != nil {
		t.Fatal(err)
	}
	password, asked, rotated := readerPassword, 0, false
	source := testSource(o.settings(), "")
	source.Secret = func(context.Context) (string, error) {
		asked++
		return password, nil
	}
	disturbed := &collected{}
	disturbed.emit = func(int) error {
		if !rotated {
			rotated, password = true, "tomorrow's"
			o.run(t, o.home, fmt.Sprintf("ALTER ROLE %s PASSWORD 'tomorrow''s'", reader))
		}
		return nil
	}
	if next, err := New().Read(t.Context(), source, nil, disturbed); err != nil || next != nil {
		t.Fatalf("the run ended with %v at %s", err, next)
	}
	if !rotated || asked != 2 {
		t.Errorf("the password was rotated (%v) and fetched %d times, want twice: at first, and when it was refused", rotated, asked)
	}
	if !slices.Equal(texts(disturbed.records), texts(undisturbed.records)) || len(disturbed.gaps) != len(undisturbed.gaps) {
		t.Errorf("%d records and the gaps %v, undisturbed %d and %v", len(disturbed.records), disturbed.gaps, len(undisturbed.records), undisturbed.gaps)
	}
	t.Attr("row", "S44 1")
}

func TestSettingsThatAPersonMustMendArePermanent(t *testing.T) {
	o := newOracle(t, 15)
	o.run(t, o.home, "CREATE ROLE no_login PASSWORD 'x'", "CREATE DATABASE closed", "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
	for words, change := range map[string]func(*integrationsv1.PostgresSettings){
		"has no database":                  func(s *integrationsv1.PostgresSettings) { s.Database = "nowhere" },
		"GRANT CONNECT ON DATABASE closed": func(s *integrationsv1.PostgresSettings) { s.Database = "closed" },
		"is not a host":                    func(s *integrationsv1.PostgresSettings) { s.Host = "/var/run/postgresql" },
		"is no ssl_mode":                   func(s *integrationsv1.PostgresSettings) { s.SslMode = "prefer" },
		"does not offer TLS":               func(s *integrationsv1.PostgresSettings) { s.SslMode = "require" },
		"is not PEM":                       func(s *integrationsv1.PostgresSettings) { s.CaCertificatePem = "junk"; s.SslMode = "verify-ca" },
	} {
		_, err := New().Read(t.Context(), testSource(o.with(change), readerPassword), nil, &collected{})
		if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent || !strings.Contains(err.Error(), words) {
			t.Errorf("want a permanent error that says %q, got: %v", words, err)
		}
	}
}

func TestServerThatIsAwayIsTriedAgain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	settings := (&oracle{port: port}).settings()
	_, err = New().Read(t.Context(), testSource(settings, "x"), nil, &collected{})
	if _, permanent := errors.AsType[*connector.PermanentError](err); err == nil || permanent || !strings.Contains(err.Error(), "can't be reached") {
		t.Errorf("Read answers %v, want an error that is tried again", err)
	}
	result, err := New().Test(t.Context(), testSource(settings, "x"))
	if err != nil || result.OK || !strings.Contains(result.Message, "can't be reached") {
		t.Errorf("Test answers %+v, %v", result, err)
	}
}

func TestTestNamesWhatCannotBeRead(t *testing.T) {
	o := newOracle(t, 15)
	o.fill(t)
	result, err := New().Test(t.Context(), testSource(o.settings(), readerPassword))
	if err != nil {
		t.Fatal(err)
	}
	if !result.OK || !strings.Contains(result.Message, "PostgreSQL 15") || len(result.Missing) != 2 {
		t.Errorf("Test answers %+v", result)
	}
	result, err = New().Test(t.Context(), testSource(o.settings(), "guess"))
	if err != nil || result.OK || !strings.Contains(result.Message, "password") {
		t.Errorf("Test with a wrong password answers %+v, %v", result, err)
	}
	source := testSource(o.settings(), "")
	source.Secret = func(context.Context) (string, error) { return "", errors.New("the keeper of secrets is away") }
	if _, err := New().Test(t.Context(), source); err == nil {
		t.Error("Test without the secret: no error")
	}
}

func TestTLSIsVerifiedAsTheSettingsSay(t *testing.T) {
	o := newOracle(t, 15)
	authority, stranger := newAuthority(t), newAuthority(t)
	o.install(t, authority, "db.example.com")
	for _, c := range []struct {
		mode, authority string
		trusted         bool
	}{
		{"disable", "", true},
		{"require", "", true},
		{"require", authority.pem, true},
		{"require", stranger.pem, false},
		{"verify-ca", authority.pem, true},
		{"verify-ca", stranger.pem, false},
		{"verify-ca", "", false},
		{"verify-full", authority.pem, false}, // the certificate is not for 127.0.0.1
	} {
		settings := o.with(func(s *integrationsv1.PostgresSettings) { s.SslMode, s.CaCertificatePem = c.mode, c.authority })
		result, err := New().Test(t.Context(), testSource(settings, readerPassword))
		if err != nil || result.OK != c.trusted {
			t.Errorf("%s with authority %t: %+v, %v; want it trusted: %t", c.mode, c.authority != "", result, err, c.trusted)
		}
		if !c.trusted && !strings.Contains(result.Message, "certificate") {
			t.Errorf("%s: %q does not speak of the certificate", c.mode, result.Message)
		}
	}
	o.install(t, authority, "127.0.0.1")
	settings := o.with(func(s *integrationsv1.PostgresSettings) { s.SslMode, s.CaCertificatePem = "verify-full", authority.pem })
	result, err := New().Test(t.Context(), testSource(settings, readerPassword))
	if err != nil || !result.OK {
		t.Errorf("verify-full with the right name: %+v, %v", result, err)
	}
}

// install gives the server a certificate and waits until it shows it.
func (o *oracle) install(t *testing.T, a *authority, host string) {
	t.Helper()
	certificate, key := a.issue(t, host)
	for name, content := range map[string]string{"server.crt": certificate, "server.key": key} {
		o.run(t, o.home, fmt.Sprintf("COPY (SELECT '%s') TO PROGRAM 'umask 077; base64 -d > %s'", base64.StdEncoding.EncodeToString([]byte(content)), name))
	}
	o.run(t, o.home, "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		if err := ctx.Err(); err != nil {
			t.Fatal("the server does not show its new certificate")
		}
		config, err := pgx.ParseConfig(o.url("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		shown := ""
		config.TLSConfig = &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error { //nolint:gosec // looked at, not trusted
			shown = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.PeerCertificates[0].Raw}))
			return nil
		}}
		if conn, err := pgx.ConnectConfig(ctx, config); err == nil {
			_ = conn.Close(ctx)
		}
		if shown == certificate {
			return
		}
	}
}

// authority signs certificates of servers.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (a *authority) issue(t *testing.T, host string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}
