// Package pgserver finds, makes, starts and stops a private PostgreSQL server: one that belongs to this checkout or this
// test run, listens on loopback or a socket of its own, demands SCRAM of everybody, and is never confused with any other
// server of the machine. A cluster comes into being whole or not at all. The package relies on its caller to keep two
// processes from making the same cluster at once, and to supervise [Server.Command] where a server must come back by
// itself.
package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Superuser is the role that initdb makes; its password is random and rests in the cluster's directory.
const Superuser = "postgres"

// Errors that callers tell apart with errors.Is. The message that wraps them says what to do.
var (
	ErrPortTaken  = errors.New("port is taken")
	ErrDiskFull   = errors.New("disk is full")
	ErrNotMade    = errors.New("cluster is not made")
	ErrNotRunning = errors.New("server is not running")
)

// Config says what server this is. Port, socket, connections and durability take effect at the next start; nothing of
// them is written into the cluster.
type Config struct {
	// Binaries is the installation to run, from Find.
	Binaries Binaries
	// Dir is the cluster's directory, absolute: the data in data/, the superuser's password in superuser.password
	// (0600), what the server says in postgres.log. When this process is root, see DirFor.
	Dir string
	// Port on 127.0.0.1. Zero without a SocketDir picks a free port; zero with one means no TCP at all.
	Port int
	// SocketDir, if set, is made and holds the unix socket. Its path must stay below about 90 bytes.
	SocketDir string
	// MaxConnections, 100 when zero. Each costs the server memory only while it is used.
	MaxConnections int
	// User that the server runs as when this process is root. Empty means `postgres` if there is such a user, else
	// `nobody`. PostgreSQL refuses to run as root.
	User string
	// UID is the numeric user and group that the server itself runs as when this process is root, where that is to be nobody else's: no
	// user of the machine needs to have it. User makes the cluster all the same, for initdb looks its own name up, and the data are
	// handed over before the cluster has its name. Zero is User.
	UID uint32
	// Throwaway is for tests: nothing is synced to disk, the server ends when this process ends, however it ends, and
	// the cluster is removed then (as root that takes a directory like /tmp, where its user may remove what it owns).
	Throwaway bool
	// Synced is a Throwaway that syncs to disk as any other server does, for measurements.
	Synced bool
}

// Server is one cluster and the server that runs on it. Its methods may be called from several goroutines and from
// several processes, one after the other: what runs is read from the cluster, not remembered.
type Server struct {
	cfg      Config
	account  account
	freePort bool

	mu   sync.Mutex
	port int
}

// MostProcesses is how many processes a server may have that takes so many connections. Before somebody has logged in they are no session, and
// one that is refused has a process that says so: PostgreSQL makes two for each that it could need (MaxLivePostmasterChildren of
// postmaster.c, of the settings that [New] leaves as they are). Who bounds a server more tightly has its clients hear nothing that they
// understand when they all come at once, as they do where a slow server starts.
func MostProcesses(connections int) int {
	const autovacuum, workers, own, spare = 3 + 1, 8, 8, 16
	return 2*(connections+autovacuum+workers) + own + spare
}

// New checks the configuration and that the user which runs the server can execute the binaries. It touches nothing.
func New(cfg Config) (*Server, error) {
	if !filepath.IsAbs(cfg.Dir) {
		return nil, fmt.Errorf("cluster directory %q is not absolute: give the full path", cfg.Dir)
	}
	if cfg.SocketDir != "" && len(cfg.SocketDir) > 90 {
		return nil, fmt.Errorf("socket directory %s is longer than the 90 bytes that unix sockets leave for it: choose a shorter one", cfg.SocketDir)
	}
	acc, err := serverAccount(cfg.User)
	if err != nil {
		return nil, err
	}
	if cfg.Binaries.Dir == "" {
		return nil, errors.New("no PostgreSQL binaries were named: call pgserver.Find first")
	}
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, 100)
	s := &Server{cfg: cfg, account: acc, port: cfg.Port, freePort: cfg.Port == 0 && cfg.SocketDir == ""}
	if s.freePort {
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Dir is the cluster's directory.
func (s *Server) Dir() string { return s.cfg.Dir }

// Binaries that this server runs.
func (s *Server) Binaries() Binaries { return s.cfg.Binaries }

// User is the name of the operating system user that the server runs as.
func (s *Server) User() string { return s.account.name }

// Port on 127.0.0.1, or with a SocketDir and no TCP the number in the socket's name.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.port, 5432)
}

// URL of a database as the superuser: over TCP if the server listens there, else over the socket. It fails with
// ErrNotMade before Init.
func (s *Server) URL(database string) (string, error) {
	password, err := os.ReadFile(s.passwordFile())
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%w: %s holds no cluster, call Init first", ErrNotMade, s.cfg.Dir)
	}
	if err != nil {
		return "", fmt.Errorf("read the superuser's password: %w", err)
	}
	return s.URLAs(Superuser, string(password), database), nil
}

// URLAs is the URL of a database for any role.
func (s *Server) URLAs(role, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Path: "/" + database}
	query := url.Values{"sslmode": {"disable"}}
	if s.cfg.Port == 0 && !s.freePort {
		query.Set("host", s.cfg.SocketDir)
		query.Set("port", strconv.Itoa(s.Port()))
	} else {
		u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port()))
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// Command is the server as a foreground process, for a supervisor: it is ready to start, runs as the right user and with
// an environment of its own, and ends in good order when ctx does. Standard output and error are the caller's to set.
// It refuses a cluster that isn't made.
//
// After a SIGKILL the backends of the killed server need a moment to notice; a start before that ends at once with a
// non-zero code, so a supervisor starts it again after a short pause.
func (s *Server) Command(ctx context.Context) (*exec.Cmd, error) {
	if _, err := os.Stat(filepath.Join(s.dataDir(), "PG_VERSION")); err != nil {
		return nil, fmt.Errorf("%w: %s holds no cluster, call Init first", ErrNotMade, s.cfg.Dir)
	}
	if err := s.checkMajor(); err != nil {
		return nil, err
	}
	if err := s.removeForeignLock(); err != nil {
		return nil, err
	}
	if s.cfg.SocketDir != "" {
		if err := s.runsAs().makeDir(s.cfg.SocketDir, 0o755); err != nil {
			return nil, fmt.Errorf("make the socket directory: %w", err)
		}
	}
	args := []string{"-D", s.dataDir()}
	for _, setting := range s.settings() {
		args = append(args, "-c", setting)
	}
	cmd := exec.CommandContext(ctx, s.cfg.Binaries.path("postgres"), args...)
	cmd.Dir = s.dataDir()
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.runsAs().credential()}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	return cmd, nil
}

// settings are given on the command line, so that a changed Config holds from the next start on and no file in the
// cluster has to be migrated.
func (s *Server) settings() []string {
	listen := "127.0.0.1"
	if s.cfg.Port == 0 && !s.freePort {
		listen = ""
	}
	settings := []string{
		"listen_addresses=" + listen,
		"port=" + strconv.Itoa(s.Port()),
		"unix_socket_directories=" + s.cfg.SocketDir,
		"max_connections=" + strconv.Itoa(s.cfg.MaxConnections),
		"password_encryption=scram-sha-256",
		"shared_buffers=32MB",
		fmt.Sprintf("max_wal_size=%dMB", walSize>>20),
		fmt.Sprintf("min_wal_size=%dMB", walSize>>20), // see reserve
		"log_line_prefix=%m [%p] %q%u@%d ",
		"log_timezone=UTC",
		"timezone=UTC",
		// A private server replicates to nobody; walsenders would only be one more way in. wal_level stays at replica all the same:
		// below it, a sequence made in the transaction that first uses it falls back when the server is killed, and hands out
		// numbers twice (seen on PostgreSQL 15).
		"max_wal_senders=0",
		// With a slot to be had, each checkpoint makes a file, and ends the server where there is no room for it.
		"max_replication_slots=0",
	}
	if s.cfg.Throwaway && !s.cfg.Synced {
		// Commits still wait for the write-ahead log to be written: what is acknowledged outlives a killed server, as
		// tests of crashes must find it, though not a crashed machine.
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	return settings
}

// checkMajor keeps a server from starting on the data of another major version, which PostgreSQL would refuse with a
// message that doesn't say what to do.
func (s *Server) checkMajor() error {
	have, err := os.ReadFile(filepath.Join(s.dataDir(), "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("read the cluster's version: %w", err)
	}
	if major := strings.TrimSpace(string(have)); major != strconv.Itoa(s.cfg.Binaries.Major) {
		return fmt.Errorf("the data in %s were made by PostgreSQL %s and %s is version %d: set A3_PG_BIN to the bin directory of a PostgreSQL %s, or remove the data",
			s.cfg.Dir, major, s.cfg.Binaries.Dir, s.cfg.Binaries.Major, major)
	}
	return nil
}

func (s *Server) dataDir() string      { return filepath.Join(s.cfg.Dir, "data") }
func (s *Server) passwordFile() string { return filepath.Join(s.cfg.Dir, "superuser.password") }
func (s *Server) logFile() string      { return filepath.Join(s.cfg.Dir, "postgres.log") }

// environment of everything this package runs: what a PG… variable of the caller says must not reach a private server.
func environment() []string {
	return []string{"PATH=" + cmp.Or(os.Getenv("PATH"), "/usr/bin:/bin"), "LC_ALL=C", "TZ=UTC"}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is let go at once
	if err != nil {
		return 0, fmt.Errorf("find a free port on 127.0.0.1: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
