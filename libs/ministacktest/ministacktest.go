// Package ministacktest runs MiniStack, an emulator of AWS that enforces policies of roles and resources, for tests. It is no AWS: what it
// can't tell (permission on the key behind SSE-KMS, passing of roles, more) stands in docs/aws.md.
package ministacktest

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Account and Region that it emulates. A key that is an account's number is root there, which only a test's own preparations use.
const (
	Account = "123456789012"
	Region  = "eu-central-1"
)

// Server is a running emulator.
type Server struct{ URL string }

// Start runs one for the test, or skips it where MiniStack is not installed.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, nil, "asked.py")
}

// programs start the emulator: with what it doesn't ask policies about as AWS does, and with what it leaves out of ECS besides.
//
//go:embed asked.py tasks.py
var programs embed.FS

// StartTasks runs one whose tasks are containers of the engine that DOCKER_HOST names. They reach it at an address of this machine, which is
// 169.254.170.2 for those that call AWS; hosts is a file that their names are written into, in the form of /etc/hosts. emulated answers a
// template as it can make it.
func StartTasks(t testing.TB, address, hosts string, emulated func(template []byte) ([]byte, error)) *Server {
	t.Helper()
	templates := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err == nil {
			text, err = emulated(text)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(text)
	}))
	t.Cleanup(templates.Close)
	return start(t, []string{"A3_TASKS_ADDRESS=" + address, "A3_TASKS_HOSTS=" + hosts, "A3_TASKS_TEMPLATES=" + templates.URL}, "tasks.py")
}

func start(t testing.TB, environ []string, program string) *Server {
	t.Helper()
	// It lies in the repository's cache, wherever in the repository the test runs.
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if python := filepath.Join(dir, ".cache/aws/bin/python"); executable(filepath.Join(dir, ".cache/aws/bin/ministack")) {
			at := t.TempDir()
			if err := os.CopyFS(at, programs); err != nil {
				t.Fatal(err)
			}
			return run(t, environ, []string{python, filepath.Join(at, program)})
		}
	}
	t.Skip("MiniStack is not installed: what calls AWS was not tried against an emulator of it; see deploy/aws/requirements.txt")
	return nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0 && !info.IsDir()
}

func run(t testing.TB, environ, args []string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	dir := t.TempDir()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "AUTH=true", "GATEWAY_PORT="+strconv.Itoa(port), "AWS_EC2_METADATA_DISABLED=true", "HOME="+dir, "MINISTACK_ACCOUNT_ID="+Account, "MINISTACK_REGION="+Region)
	cmd.Env = append(cmd.Env, environ...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	s := &Server{URL: "http://127.0.0.1:" + strconv.Itoa(port)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/_ministack/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return s
			}
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("MiniStack does not answer: %s", text)
		case <-tick.C:
		}
	}
}

// Root is the account's own, for what a test prepares.
func (s *Server) Root() aws.Config { return s.at(Account, "root", "") }

func (s *Server) at(key, secret, token string) aws.Config {
	return aws.Config{Region: Region, BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider(key, secret, token), RetryMaxAttempts: 3}
}

// Statement is one of a role's policy.
type Statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]any `json:",omitempty"`
}

// Role makes a role with statements, and answers a session of it.
func (s *Server) Role(t testing.TB, name string, statements ...Statement) aws.Config {
	t.Helper()
	return s.RoleAs(t, s.Root(), Account, name, statements...)
}

// RoleAs does the same in the account of a root.
func (s *Server) RoleAs(t testing.TB, root aws.Config, account, name string, statements ...Statement) aws.Config {
	t.Helper()
	document := func(statements any) *string {
		text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
		if err != nil {
			t.Fatal(err)
		}
		return aws.String(string(text))
	}
	client := iam.NewFromConfig(root)
	trust := []any{map[string]any{"Effect": "Allow", "Principal": map[string]string{"AWS": "arn:aws:iam::" + account + ":root"}, "Action": "sts:AssumeRole"}}
	// A call whose answer got lost is made again by the SDK, and finds the role there: names are no other test's.
	_, err := client.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: document(trust)})
	if there := (*types.EntityAlreadyExistsException)(nil); err != nil && !errors.As(err, &there) {
		t.Fatal(err)
	}
	if _, err := client.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("own"), PolicyDocument: document(statements)}); err != nil {
		t.Fatal(err)
	}
	session, err := sts.NewFromConfig(root).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::" + account + ":role/" + name), RoleSessionName: aws.String("test")})
	if err != nil {
		t.Fatal(err)
	}
	c := session.Credentials
	return s.at(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

// Behind puts a proxy before the server. refuse answers a request itself, and says so; what it leaves alone goes on.
func (s *Server) Behind(t testing.TB, refuse func(w http.ResponseWriter, r *http.Request) bool) *Server {
	t.Helper()
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	// Who calls signed the name that it called.
	on := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target); p.Out.Host = p.In.Host }}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !refuse(w, r) {
			on.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(proxy.Close)
	return &Server{URL: proxy.URL}
}

// As has a configuration call this server.
func (s *Server) As(cfg aws.Config) aws.Config {
	cfg.BaseEndpoint = &s.URL
	return cfg
}
