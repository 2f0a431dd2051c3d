package settings_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/settings"
)

func TestDefaultsAreTwoTenantsOnLoopback(t *testing.T) {
	s, err := settings.Load([]string{"PATH=/bin", "A3_PG_BIN=/x"}, "/checkout")
	if err != nil {
		t.Fatal(err)
	}
	if s.Home != "/checkout/.a3" || s.Address() != "127.0.0.1:7443" || strings.Join(s.Tenants, " ") != "acme globex" || strings.Join(s.MachineTenants, " ") != "acme" {
		t.Errorf("they are %+v", s)
	}
	if got := s.URL("acme"); got != "https://acme.localhost:7443" {
		t.Errorf("acme is at %s", got)
	}
}

func TestOneCompanyIsServedUnderItsOwnName(t *testing.T) {
	s, err := settings.Load([]string{"A3_DOMAIN=Access.Example.com", "A3_TENANTS=corp", "A3_PORT=443", "A3_LISTEN=0.0.0.0", "A3_UNIX_TENANTS=none"}, "/")
	if err != nil {
		t.Fatal(err)
	}
	if s.URL("corp") != "https://access.example.com" || s.Apex() != "corp" || s.Dial() != "127.0.0.1:443" || len(s.MachineTenants) != 0 {
		t.Errorf("it is %+v at %s", s, s.URL("corp"))
	}
}

// At AWS people come to a load balancer: hosts have no port of their own, nobody is made whom nobody named, and the domain is one that somebody has.
func TestAtAWSHostsHaveNoPortAndTenantsAreNamed(t *testing.T) {
	at := []string{"A3_PLATFORM=aws", "A3_AWS_REGION=eu-central-1", "A3_DOMAIN=a3os.example"}
	s, err := settings.Load(at, "/")
	if err != nil || s.URL("acme") != "https://acme.a3os.example" || len(s.Tenants) != 0 || len(s.MachineTenants) != 0 {
		t.Errorf("acme is at %s, of %v and %v: %v", s.URL("acme"), s.Tenants, s.MachineTenants, err)
	}
	if s, err := settings.Load(append(at, "A3_TENANTS=acme,globex", "A3_PORT=443"), "/"); err != nil || len(s.Tenants) != 2 {
		t.Errorf("named are %v: %v", s.Tenants, err)
	}
	for variable, environ := range map[string][]string{"A3_PORT": append(at, "A3_PORT=7443"), "A3_DOMAIN": at[:2]} {
		if _, err := settings.Load(environ, "/"); err == nil || !strings.Contains(err.Error(), variable) {
			t.Errorf("%v: %v", environ, err)
		}
	}
}

func TestEachFaultIsNamedByItsVariable(t *testing.T) {
	for kv, says := range map[string]string{
		"A3_PORT=0": "1 to 65535", "A3_PORT=https": "1 to 65535", "A3_LISTEN=localhost": "IP address", "A3_DOMAIN=exa mple.com": "domain name",
		"A3_TENANTS=Acme": "lower-case", "A3_TENANTS=acme,acme": "twice", "A3_TENANTS=none": "at least one", "A3_UNIX_TENANTS=a_b": "lower-case",
		"A3_TLS_CERT=x.pem": "belong together", "A3_LOG_LEVEL=loud": "debug", "A3_TENANT_RATE=-1": "in a second", "A3_TENANT_RATE=NaN": "in a second", "A3_TENANT=acme": "not known",
		"A3_CORS_ORIGINS=*": "origin", "A3_CORS_ORIGINS=https://*.example.com": "origin", "A3_CORS_ORIGINS=https://app.example.com/": "origin",
		"A3_CORS_ORIGINS=https://App.example.com": "origin", "A3_CORS_ORIGINS=https://app.example.com:443": "origin", "A3_CORS_ORIGINS=null": "origin",
		"A3_CORS_ORIGINS=http://app.example.com": "http only of localhost", "A3_CORS_ORIGINS=https://me@app.example.com": "origin",
	} {
		variable, _, _ := strings.Cut(kv, "=")
		_, err := settings.Load([]string{kv}, "/")
		if err == nil || !strings.Contains(err.Error(), variable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s gives %v, want the variable and %q", kv, err, says)
		}
	}
}

func TestBrowserOriginsAreNamedOneByOne(t *testing.T) {
	s, err := settings.Load([]string{"A3_CORS_ORIGINS=https://app.example.com, https://app.example.com:8443,http://localhost:5173,http://127.0.0.1"}, "/")
	if want := []string{"https://app.example.com", "https://app.example.com:8443", "http://localhost:5173", "http://127.0.0.1"}; err != nil || !slices.Equal(s.CORSOrigins, want) {
		t.Errorf("they are %v, %v", s.CORSOrigins, err)
	}
	if s, err = settings.Load(nil, "/"); err != nil || len(s.CORSOrigins) != 0 {
		t.Errorf("without any they are %v, %v", s.CORSOrigins, err)
	}
}

// Who works with both command lines has a3's variables set as well.
func TestVariablesOfA3StopNobody(t *testing.T) {
	if _, err := settings.Load([]string{"A3_PROFILE=acme-admin", "A3_WORKSPACE=finance"}, "/"); err != nil {
		t.Errorf("they give %v", err)
	}
}

func TestTheReadmeListsTheVariablesThatThereAre(t *testing.T) {
	readme, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(readme), "| variable |")
	if !ok {
		t.Fatal("the README has no table of variables")
	}
	var said, known []string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			break
		}
		said = append(said, regexp.MustCompile("A3_[A-Z0-9_]+").FindAllString(cells[1], -1)...)
	}
	for _, v := range settings.Variables {
		known = append(known, v.Name)
		if !strings.Contains(settings.Help(), "  "+v.Name+" ") {
			t.Errorf("the help lacks %s", v.Name)
		}
	}
	slices.Sort(said)
	slices.Sort(known)
	if !slices.Equal(said, known) {
		t.Errorf("the README has %v\nand there are %v", said, known)
	}
}
