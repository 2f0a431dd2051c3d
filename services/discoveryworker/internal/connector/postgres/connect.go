package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

const (
	connectTimeout = 10 * time.Second
	// oldest is the oldest major version whose catalogues the queries fit; tests run on 15 and 17.
	oldest = 14
)

// errSecret marks that the secret could not be fetched, which says nothing about the system.
var errSecret = errors.New("fetch the password")

// server is one PostgreSQL server, as the settings say to reach it.
type server struct {
	source   connector.Source
	settings *integrationsv1.PostgresSettings
	password string
	fetched  bool
}

func newServer(source connector.Source) (*server, error) {
	settings := source.Settings.GetPostgres()
	switch {
	case settings == nil:
		return nil, connector.Permanent(errors.New("the integration has no PostgreSQL settings: set host, port, user and database"))
	case settings.GetHost() == "" || strings.HasPrefix(settings.GetHost(), "/") || strings.HasPrefix(settings.GetHost(), "@"):
		return nil, connector.Permanent(fmt.Errorf("%q is not a host: give a name or an address, sockets are not read", settings.GetHost()))
	}
	return &server{source: source, settings: settings}, nil
}

// String is host:port.
func (s *server) String() string {
	return net.JoinHostPort(s.settings.GetHost(), strconv.FormatUint(uint64(s.settings.GetPort()), 10))
}

// connect logs in. A refused password is fetched again once, for it may have been rotated.
func (s *server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	if !s.fetched {
		password, err := s.source.Secret(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errSecret, err)
		}
		s.password, s.fetched = password, true
	}
	conn, err := s.login(ctx, database)
	if !wrongPassword(err) {
		return conn, err
	}
	password, again := s.source.Secret(ctx)
	if again != nil {
		return nil, fmt.Errorf("%w: %w", errSecret, again)
	}
	if password == s.password {
		return nil, err
	}
	s.password = password
	return s.login(ctx, database)
}

func (s *server) login(ctx context.Context, database string) (*pgx.Conn, error) {
	// pgx wants its configuration parsed; nothing of the worker's own environment may get into it, so all of it is set here.
	config, err := pgx.ParseConfig("host=localhost sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("prepare the connection: %w", err)
	}
	config.Host, config.Port = s.settings.GetHost(), uint16(s.settings.GetPort()) //nolint:gosec // bounded by the proto's rules
	config.User, config.Password, config.Database = s.settings.GetUser(), s.password, database
	config.RuntimeParams = map[string]string{"application_name": "accessos"}
	config.ConnectTimeout = connectTimeout
	if s.source.Dial != nil {
		config.DialFunc = s.source.Dial
	}
	config.Fallbacks, config.ValidateConnect, config.AfterConnect = nil, nil, nil
	config.SSLNegotiation, config.SSLCertMode = "postgres", "disable"
	if config.TLSConfig, err = tlsConfig(s.settings); err != nil {
		return nil, connector.Permanent(err)
	}
	switch s.settings.GetSslMode() {
	case "verify-ca", "verify-full":
		config.RequireAuth = ""
	default:
		// Whoever answers has not proved who it is: the password is never sent to it in the clear.
		config.RequireAuth = "scram-sha-256,md5,none"
	}
	return pgx.ConnectConfig(ctx, config)
}

// tlsConfig is the meaning of ssl_mode, as libpq has it (PostgreSQL documentation, 34.19.1): `require` encrypts and verifies nothing
// unless an authority is given.
func tlsConfig(settings *integrationsv1.PostgresSettings) (*tls.Config, error) {
	var roots *x509.CertPool
	if pem := settings.GetCaCertificatePem(); pem != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(pem)) {
			return nil, errors.New("the authority's certificate is not PEM: paste a block that begins with BEGIN CERTIFICATE")
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: settings.GetHost()}
	switch mode := settings.GetSslMode(); mode {
	case "disable":
		return nil, nil
	case "require", "verify-ca":
		// The name is not compared in these modes, so the standard verification is replaced by one of the chain alone.
		config.InsecureSkipVerify = true //nolint:gosec // see above
		if mode == "verify-ca" || roots != nil {
			config.VerifyConnection = func(state tls.ConnectionState) error { return verifyChain(roots, state.PeerCertificates) }
		}
		return config, nil
	case "verify-full":
		return config, nil
	default:
		return nil, fmt.Errorf("%q is no ssl_mode: use disable, require, verify-ca or verify-full", mode)
	}
}

func verifyChain(roots *x509.CertPool, certificates []*x509.Certificate) error {
	if len(certificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range certificates[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := certificates[0].Verify(options)
	return err
}

// SQLSTATEs that mean something to a reader of catalogues.
const (
	codeWrongPassword  = "28P01"
	codeNotAuthorised  = "28000"
	codeNoSuchDatabase = "3D000"
	codeNoPrivilege    = "42501"
	codeNotConnectable = "55000"
	codeTimeout        = "57014"
)

func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func wrongPassword(err error) bool { return code(err) == codeWrongPassword }

// gone says that the database was dropped since it was listed.
func gone(err error) bool { return code(err) == codeNoSuchDatabase }

// refusal says that the server lets this role in but not there, and why.
func refusal(err error) (string, bool) {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return "", false
	}
	switch e.Code {
	case codeNoPrivilege, codeNotAuthorised, codeNotConnectable:
		return e.Message, true
	default:
		return "", false
	}
}

// explain makes a sentence of what went wrong while connecting, without what the library says about the connection.
func (s *server) explain(database string, err error) error {
	user := s.settings.GetUser()
	if errors.Is(err, errSecret) || errors.Is(err, context.Canceled) {
		return err
	}
	if _, permanent := errors.AsType[*connector.PermanentError](err); permanent {
		return err
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return s.explainRefusal(database, e)
	}
	if reason := badCertificate(err); reason != "" {
		return connector.Permanent(fmt.Errorf("the certificate of %s is not to be trusted (%s): give the authority that signed it, or correct the host", s, reason))
	}
	text := rootCause(err)
	switch {
	case strings.Contains(text, "server refused TLS"):
		return connector.Permanent(fmt.Errorf("%s does not offer TLS: switch it on there (ssl = on), or set ssl_mode to disable where the network is trusted", s))
	case strings.Contains(text, "authentication method"):
		return connector.Permanent(fmt.Errorf("%s wants the password of role %q in a form that needs a verified server (%s): set ssl_mode to verify-full", s, user, text))
	default:
		return fmt.Errorf("PostgreSQL at %s can't be reached: %s", s, text)
	}
}

// explainRefusal tells refusals that a person must mend from those that pass.
func (s *server) explainRefusal(database string, e *pgconn.PgError) error {
	user := s.settings.GetUser()
	switch e.Code {
	case codeWrongPassword:
		return connector.Permanent(fmt.Errorf("%s refuses the password of role %q: store the right one with the integration", s, user))
	case codeNotAuthorised:
		return connector.Permanent(fmt.Errorf("%s does not let role %q in (%s): let it log in, and allow it in pg_hba.conf", s, user, e.Message))
	case codeNoSuchDatabase:
		return connector.Permanent(fmt.Errorf("%s has no database %q: name another in the settings", s, database))
	case codeNoPrivilege:
		return connector.Permanent(fmt.Errorf("role %q may not connect to database %q of %s: GRANT CONNECT ON DATABASE %s TO %s", user, database, s,
			quote(database), quote(user)))
	default:
		return fmt.Errorf("PostgreSQL at %s answers: %s (%s)", s, e.Message, e.Code)
	}
}

func badCertificate(err error) string {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Err.Error()
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return e.Error()
	}
	return ""
}

// rootCause is the innermost error's text: the outer ones repeat the connection's parameters.
func rootCause(err error) string {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok && e.Unwrap() != nil {
		err = e.Unwrap()
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// sentence is an error's text with a capital and a full stop.
func sentence(err error) string {
	text := err.Error()
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
