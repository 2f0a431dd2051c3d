package pg_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"a3os.app/libs/awssession"
	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/pg"
)

const (
	rdsRegion  = "eu-central-1"
	rdsHost    = "localhost"
	tokenLasts = 15 * time.Minute
)

var rdsKeys = aws.Credentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "c4nary", SessionToken: "of a role"}

// rds stands before a real PostgreSQL server as RDS does where login is by tokens of IAM: over TLS alone, with the token as the password, which
// it verifies as AWS documents it. What it lets in goes on to the server as the role with its real password.
type rds struct {
	roots string
	port  int
	// asked is how many tokens were shown.
	asked atomic.Int64
}

func newRDS(t *testing.T, server string) *rds {
	t.Helper()
	r := &rds{roots: filepath.Join(t.TempDir(), "roots.pem")}
	certificate := authority(t, r.roots)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.port = plain.Addr().(*net.TCPAddr).Port
	var open sync.WaitGroup
	t.Cleanup(func() { _ = plain.Close(); open.Wait() })
	open.Go(func() {
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				if err := r.serve(t.Context(), conn, certificate, server); err != nil && !errors.Is(err, io.EOF) && t.Context().Err() == nil {
					t.Log(err)
				}
			})
		}
	})
	return r
}

// authority writes roots, and answers what they vouch for: the server of the host's name.
func authority(t *testing.T, roots string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rdsHost}, DNSNames: []string{rdsHost}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (r *rds) serve(ctx context.Context, conn net.Conn, certificate tls.Certificate, server string) error {
	in := pgproto3.NewBackend(conn, conn)
	if m, err := in.ReceiveStartupMessage(); err != nil {
		return err
	} else if _, is := m.(*pgproto3.SSLRequest); !is {
		return errors.New("no TLS was asked for")
	}
	if _, err := conn.Write([]byte("S")); err != nil {
		return err
	}
	secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	defer secure.Close()
	in = pgproto3.NewBackend(secure, secure)
	m, err := in.ReceiveStartupMessage()
	if err != nil {
		return err
	}
	startup, is := m.(*pgproto3.StartupMessage)
	if !is {
		return fmt.Errorf("a startup message was expected, and no %T", m)
	}
	in.Send(&pgproto3.AuthenticationCleartextPassword{})
	if err := errors.Join(in.Flush(), in.SetAuthType(pgproto3.AuthTypeCleartextPassword)); err != nil {
		return err
	}
	said, err := in.Receive()
	if err != nil {
		return err
	}
	token, is := said.(*pgproto3.PasswordMessage)
	if !is {
		return fmt.Errorf("a password was expected, and no %T", said)
	}
	if err := r.verify(ctx, token.Password, startup.Parameters["user"]); err != nil {
		in.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: "PAM authentication failed: " + err.Error()})
		return in.Flush()
	}
	return r.relay(ctx, secure, in, startup, server)
}

// verify is a token as AWS documents it: the request to connect as a user, signed for a quarter of an hour.
func (r *rds) verify(ctx context.Context, token, user string) error {
	r.asked.Add(1)
	u, err := url.Parse("https://" + token)
	if err != nil {
		return err
	}
	q := u.Query()
	at, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	if err != nil {
		return err
	}
	want := fmt.Sprintf("%s:%d", rdsHost, r.port)
	if u.Host != want || q.Get("Action") != "connect" || q.Get("DBUser") != user || q.Get("X-Amz-Expires") != "900" || time.Since(at) > tokenLasts {
		return fmt.Errorf("the token is for %s at %s", q.Get("DBUser"), u.Host)
	}
	again, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+want+"/?Action=connect&DBUser="+url.QueryEscape(user)+"&X-Amz-Expires=900", http.NoBody)
	if err != nil {
		return err
	}
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, rdsKeys, again, nothing, "rds-db", rdsRegion, at)
	if err != nil {
		return err
	}
	if s, err := url.Parse(signed); err != nil || s.Query().Get("X-Amz-Signature") != q.Get("X-Amz-Signature") {
		return errors.New("the signature is another")
	}
	return nil
}

// relay logs in at the real server, and hands on what is said from then on.
func (r *rds) relay(ctx context.Context, client net.Conn, in *pgproto3.Backend, startup *pgproto3.StartupMessage, server string) error {
	cc, err := pgx.ParseConfig(server)
	if err != nil {
		return err
	}
	for name, value := range startup.Parameters {
		if name != "user" && name != "database" {
			cc.RuntimeParams[name] = value
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return err
	}
	hijacked, err := conn.PgConn().Hijack()
	if err != nil {
		return err
	}
	defer hijacked.Conn.Close()
	in.Send(&pgproto3.AuthenticationOk{})
	for name, value := range hijacked.ParameterStatuses {
		in.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	in.Send(&pgproto3.BackendKeyData{ProcessID: hijacked.PID, SecretKey: hijacked.SecretKey})
	in.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := in.Flush(); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(hijacked.Conn, client)
		_ = hijacked.Conn.Close()
	}()
	_, err = io.Copy(client, hijacked.Conn)
	return err
}

// A role logs in by a token that is made for each connection and goes to a server whose certificate was verified, and to no other.
func TestRoleLogsInByATokenAtAVerifiedServerAlone(t *testing.T) {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": rdsKeys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": rdsKeys.SecretAccessKey, "AWS_SESSION_TOKEN": rdsKeys.SessionToken, "AWS_REGION": rdsRegion,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"} {
		t.Setenv(name, value)
	}
	b := newThings(t)
	r := newRDS(t, b.iam)
	real, err := pgx.ParseConfig(b.iam)
	if err != nil {
		t.Fatal(err)
	}
	at := func(user, host, query string) string {
		return fmt.Sprintf("%s%s@%s:%d/%s?%s", pg.TokenScheme, user, host, r.port, real.Database, query)
	}
	verified := "sslmode=verify-full&sslrootcert=" + url.QueryEscape(r.roots)
	opened := func(url string) (*pg.DB, error) {
		db, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 2, Service: "pgtest", Owner: bindingtest.Somebody(t)})
		if err == nil {
			t.Cleanup(db.Close)
		}
		return db, err
	}
	db, err := opened(at(real.User, rdsHost, verified))
	if err != nil {
		t.Fatal(err)
	}
	var user string
	if err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if err := db.Ping(ctx); err != nil { // a second connection
			return err
		}
		return tx.QueryRow(ctx, "SELECT current_user").Scan(&user)
	}); err != nil || user != real.User {
		t.Fatalf("it is %q: %v", user, err)
	}
	// RDS lets those log in by tokens who are members of a role of its own. A service that logs in otherwise is a member of none.
	super, err := pgx.Connect(t.Context(), b.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer super.Close(t.Context())
	exec := func(sql string) {
		t.Helper()
		if _, err := super.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE ROLE rds_iam")
	defer exec("DROP ROLE rds_iam")
	exec("GRANT rds_iam TO " + pgx.Identifier{real.User}.Sanitize())
	if err := db.Prove(t.Context()); err != nil {
		t.Errorf("a service that logs in by tokens does not start: %v", err)
	}
	if err := open(t, b.iam, 1).Prove(t.Context()); !errors.Is(err, binding.ErrReach) || !strings.Contains(err.Error(), "rds_iam") {
		t.Errorf("one that logs in by a password, and could by tokens: %v", err)
	}
	if n := r.asked.Load(); n < 2 {
		t.Errorf("two connections showed %d tokens", n)
	}

	others := filepath.Join(t.TempDir(), "others.pem")
	authority(t, others)
	for name, c := range map[string]struct{ url, want string }{
		"not verified":      {at(real.User, rdsHost, "sslmode=require"), "sslmode=verify-full"},
		"any name":          {at(real.User, rdsHost, "sslmode=verify-ca&sslrootcert="+url.QueryEscape(r.roots)), "sslmode=verify-full"},
		"without TLS":       {at(real.User, rdsHost, "sslmode=disable"), "sslmode=verify-full"},
		"a password":        {at(real.User+":c4nary", rdsHost, verified), "a password besides"},
		"another authority": {at(real.User, rdsHost, "sslmode=verify-full&sslrootcert="+url.QueryEscape(others)), "certificate"},
		"another name":      {at(real.User, "127.0.0.1", verified), "certificate"},
	} {
		before := r.asked.Load()
		db, err := opened(c.url)
		if err == nil {
			err = db.Ping(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !safe(err) || r.asked.Load() != before {
			t.Errorf("%s: %v, and %d tokens were shown", name, err, r.asked.Load()-before)
		}
	}

	// Whose keys are others' is let in by nobody, and a long-lived key makes no token.
	t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
	if db, err = opened(at(real.User, rdsHost, verified)); err == nil {
		err = db.Ping(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "PAM authentication failed") {
		t.Errorf("a token that another key signed: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	if _, err := opened(at(real.User, rdsHost, verified)); !errors.Is(err, awssession.ErrLongLived) {
		t.Errorf("a long-lived key: %v", err)
	}
}
