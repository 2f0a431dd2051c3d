package revocation

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
	"a3os.app/tools/internal/profile"
)

// methods are one of each service that tells whether it believes a token, whatever else it thinks of it.
var methods = map[string]string{
	"iam":              "/a3os.iam.v1.IdentityService/GetSelf",
	"integrations":     "/a3os.integrations.v1.IntegrationService/ListIntegrations",
	"discovery":        "/a3os.discovery.v1.RunService/ListRuns",
	"audit":            "/a3os.audit.v1.AuditService/ListEvents",
	"discovery-worker": "/a3os.discovery.v1.ConnectorService/TestSource",
}

// set is the first tenant of the plane that is up.
type set struct {
	slug, url string
	client    *http.Client
	session   *profile.Session
	probes    []probe
}

// probe is a service at its own port.
type probe struct {
	service, url string
	client       *http.Client
}

var errNone = errors.New("no plane is up: run make up first")

func open(ctx context.Context, root string) (*set, error) {
	var status struct {
		Tenants []struct{ ID, Slug, URL string }
	}
	if err := fleet(ctx, root, &status, "plane", "status"); err != nil || len(status.Tenants) == 0 {
		return nil, errNone
	}
	t := status.Tenants[0]
	var shown struct {
		ServiceSet struct {
			Components []struct{ Name, Address string }
		}
	}
	if err := fleet(ctx, root, &shown, "tenant", "show", t.Slug); err != nil {
		return nil, err
	}
	home := os.Getenv("A3_HOME")
	if home == "" {
		home = filepath.Join(root, ".a3")
	}
	s := &set{slug: t.Slug, url: t.URL}
	var err error
	if s.session, err = profile.In(home).Open(t.Slug + "-admin"); err != nil {
		return nil, err
	}
	s.client = s.session.Client()
	tenant, err := id.ParseTenant(t.ID)
	if err != nil {
		return nil, err
	}
	for _, c := range shown.ServiceSet.Components {
		if methods[c.Name] == "" {
			continue
		}
		p, err := newProbe(home, tenant, c.Name, c.Address)
		if err != nil {
			return nil, err
		}
		s.probes = append(s.probes, p)
	}
	if len(s.probes) != len(methods) {
		return nil, fmt.Errorf("tenant %s has %d of the services that are asked, want %d", t.Slug, len(s.probes), len(methods))
	}
	return s, nil
}

// newProbe believes the service's own certificate, and presents none.
func newProbe(home string, tenant id.Tenant, service, addr string) (probe, error) {
	identity := workload.Identity{Plane: "dev", Tenant: tenant, Service: service}
	raw, err := os.ReadFile(filepath.Join(home, "tenants", tenant.String(), "pki", "roots.pem"))
	if err != nil {
		return probe{}, fmt.Errorf("read the tenant's roots: %w", err)
	}
	roots, err := workload.ParseRoots(identity.TrustDomain(), raw)
	if err != nil {
		return probe{}, err
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}}
	return probe{service: service, url: "https://" + identity.ServerName() + methods[service], client: &http.Client{Transport: transport}}, nil
}

func (s *set) close() {
	for _, p := range s.probes {
		p.client.CloseIdleConnections()
	}
}

// believes asks the service whether it believes a token.
func (p probe) believes(ctx context.Context, token string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader("{}"))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := p.client.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode != http.StatusUnauthorized, err
}

func (s *set) signIn(ctx context.Context, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/oauth2/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.AccessToken == "" {
		return "", fmt.Errorf("sign a service account in: %s %s (%w)", res.Status, answer.Error, err)
	}
	return answer.AccessToken, nil
}

func fleet(ctx context.Context, root string, into any, args ...string) error {
	program, err := filepath.Abs(filepath.Join(root, "bin", "fleet"))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"-o", "json"}, args...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("fleet %s: %w", strings.Join(args, " "), err)
	}
	return json.Unmarshal(bytes.TrimSpace(out), into)
}
