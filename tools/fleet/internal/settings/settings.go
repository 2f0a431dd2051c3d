// Package settings is what a plane on one machine is told by A3_* variables. It promises that what it answers is valid, and that
// each fault is told by the variable's name with what would be right, before anything is made.
package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"a3os.app/libs/snapshot"
)

// Settings of a plane.
type Settings struct {
	// Home is the directory of all state, absolute.
	Home string
	// Listen is the address that the gateway listens on, Port the port.
	Listen string
	Port   int
	// Domain is the name below which tenants have their hosts.
	Domain string
	// Tenants are the slugs of the tenants that `plane up` makes.
	Tenants []string
	// MachineTenants are the slugs of those that may read this machine.
	MachineTenants []string
	// TLSCert and TLSKey are files with a certificate of one's own; empty for one of the local authority.
	TLSCert, TLSKey string
	// Plane is `dev` or `prod`; empty is what the plane was made as, and for a new one `dev`.
	Plane string
	// Platform that carries sets out: `local`, `docker` or `aws`; empty is the one that the plane was made on.
	Platform string
	// AWS is where platform aws works.
	AWS AWS
	// Networks is where a docker plane's networks are cut from, and Outside the private networks that a tenant's discovery may reach from
	// there.
	Networks netip.Prefix
	Outside  []netip.Prefix
	// ReleaseKeys are public keys that releases may be signed with beside the plane's own, joined by commas.
	ReleaseKeys string
	// LicenceKeys are public keys that licences may be signed with beside the plane's own, joined by commas.
	LicenceKeys string
	// CORSOrigins are the browser origins other than their own host that may call every tenant, as `https://app.example.com`.
	CORSOrigins []string
	// TenantRate is how many requests of one tenant begin in a second while other tenants call; 0 is what the gateway holds for right.
	TenantRate float64
	// LogLevel of every process.
	LogLevel string
	// BackupDir is where backups are written, absolute; BackupEvery how often a running plane makes one of each set, 0 for never;
	// BackupKeep how many of a set are kept. BackupDirSaid is whether somebody said where; else that is the home's.
	BackupDir     string
	BackupDirSaid bool
	BackupEvery   time.Duration
	BackupKeep    int
	// Blueprint is a file that says what the plane's tenants have, absolute; empty is the one that the plane was made with.
	Blueprint string
	// Operator is the name of who works: the registry knows them by a certificate of that name. Empty is the plane's first operator.
	Operator string
	// OperatorDir is the directory of an operator whose key is their own, absolute: they work. Empty where Operator does.
	OperatorDir string
}

// AWS is where platform aws works.
type AWS struct {
	// Region, as eu-central-1.
	Region string
	// SourceIdentity is the name under which fleet becomes the provisioner, as whom the login that it finds is another role; empty where that is the provisioner.
	SourceIdentity string
	// DatabaseCA is a file with the authorities that vouch for the certificates of RDS's servers, PEM; empty for an emulator, which has none.
	DatabaseCA string
	// DatabaseTokens has components log in to their database by tokens of IAM in place of passwords.
	DatabaseTokens bool
}

const (
	// atAWS is the platform where people come to a load balancer, at balancerPort.
	atAWS        = "aws"
	balancerPort = 443
	// defaultDomain is what a plane under a name of one's own has not.
	defaultDomain = "localhost"
	mostRate      = 1e6
)

// sourceIdentity is what STS takes for one.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
var sourceIdentity = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// OperatorName is how operators may be called: what follows `operator-` in a certificate's 32 octets.
var OperatorName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,21}[a-z0-9])?$`)

var hostLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Load reads the settings from environ, in the form of os.Environ. root is the directory that a relative home is below of, and that
// holds `.a3` where A3_HOME is not set.
func Load(environ []string, root string) (Settings, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	values := map[string]string{}
	for _, v := range Variables {
		values[v.Name] = v.Default
	}
	if slices.Contains(environ, "A3_PLATFORM="+atAWS) {
		values["A3_PORT"], values["A3_TENANTS"], values["A3_UNIX_TENANTS"] = strconv.Itoa(balancerPort), "none", "none"
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "A3_") || value == "" || slices.Contains(others, name) {
			continue
		}
		if _, known := values[name]; !known {
			fault("%s is not known: take it away, or see `fleet plane up --help` for the variables there are", name)
			continue
		}
		values[name] = value
	}
	take := func(name string) string {
		v, ok := values[name]
		if !ok {
			fault("%s is read and stands in no table: add it to settings.Variables", name)
		}
		return v
	}
	s := Settings{
		Home: take("A3_HOME"), Listen: take("A3_LISTEN"), Domain: strings.ToLower(take("A3_DOMAIN")),
		TLSCert: take("A3_TLS_CERT"), TLSKey: take("A3_TLS_KEY"), LogLevel: take("A3_LOG_LEVEL"),
		BackupDir:   take("A3_BACKUP_DIR"),
		Blueprint:   take("A3_BLUEPRINT"),
		Operator:    take("A3_OPERATOR"),
		OperatorDir: take("A3_OPERATOR_DIR"),
		ReleaseKeys: take("A3_RELEASE_KEYS"),
		LicenceKeys: take("A3_LICENCE_KEYS"),
	}
	for _, path := range []*string{&s.Home, &s.TLSCert, &s.TLSKey, &s.BackupDir, &s.Blueprint, &s.OperatorDir} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(root, *path)
		}
	}
	if s.BackupDirSaid = s.BackupDir != ""; !s.BackupDirSaid {
		s.BackupDir = filepath.Join(s.Home, "backups")
	}
	s.backups(take("A3_BACKUP_EVERY"), take("A3_BACKUP_KEEP"), fault)
	port := take("A3_PORT")
	var err error
	if s.Port, err = strconv.Atoi(port); err != nil || s.Port < 1 || s.Port > 65535 {
		fault("A3_PORT is %q: it is a port, 1 to 65535", port)
	}
	if net.ParseIP(s.Listen) == nil {
		fault("A3_LISTEN is %q: it is an IP address, as 127.0.0.1 or 0.0.0.0", s.Listen)
	}
	if len(s.Domain) > 200 || slices.ContainsFunc(strings.Split(s.Domain, "."), func(l string) bool { return !hostLabel.MatchString(l) }) {
		fault("A3_DOMAIN is %q: it is a domain name, as localhost or access.example.com", s.Domain)
	}
	s.Tenants = slugs("A3_TENANTS", take("A3_TENANTS"), fault)
	if len(s.Tenants) == 0 && take("A3_PLATFORM") != atAWS {
		fault("A3_TENANTS is empty: name at least one tenant, as acme,globex")
	}
	s.MachineTenants = slugs("A3_UNIX_TENANTS", take("A3_UNIX_TENANTS"), fault)
	if (s.TLSCert == "") != (s.TLSKey == "") {
		fault("A3_TLS_CERT and A3_TLS_KEY belong together: set both, or neither")
	}
	if s.Operator != "" && !OperatorName.MatchString(s.Operator) {
		fault("A3_OPERATOR is %q: it is the name of an operator, as fleet operator list shows it", s.Operator)
	}
	if s.Operator != "" && s.OperatorDir != "" {
		fault("A3_OPERATOR and A3_OPERATOR_DIR each say who works: set one of them")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		fault("A3_LOG_LEVEL is %q: it is debug, info, warn or error", s.LogLevel)
	}
	s.CORSOrigins = origins(take("A3_CORS_ORIGINS"), fault)
	rate := take("A3_TENANT_RATE")
	if s.TenantRate, err = strconv.ParseFloat(rate, 64); err != nil || !(s.TenantRate >= 0 && s.TenantRate <= mostRate) {
		fault("A3_TENANT_RATE is %q: it is how many requests of a tenant begin in a second, up to %d, or 0 for as many as fit the processors", rate, int(mostRate))
	}
	s.Plane = take("A3_PLANE")
	if !slices.Contains([]string{"", "dev", "prod"}, s.Plane) {
		fault("A3_PLANE is %q: it is dev or prod", s.Plane)
	}
	s.Platform = take("A3_PLATFORM")
	if !slices.Contains([]string{"", "local", "docker", "aws"}, s.Platform) {
		fault("A3_PLATFORM is %q: it is local, docker or aws", s.Platform)
	}
	s.aws(take("A3_AWS_REGION"), take("A3_AWS_SOURCE_IDENTITY"), fault)
	s.awsDatabase(take("A3_AWS_DATABASE_CA"), take("A3_AWS_DATABASE_LOGIN"), fault)
	nets := prefixes("A3_NETWORKS", take("A3_NETWORKS"), fault)
	const smallest = 24
	if len(nets) == 1 && nets[0].Bits() <= smallest {
		s.Networks = nets[0]
	} else {
		fault("A3_NETWORKS is one network of /%d or larger, as 10.83.0.0/16", smallest)
	}
	s.Outside = prefixes("A3_OUTSIDE_NETWORKS", take("A3_OUTSIDE_NETWORKS"), fault)
	return s, errors.Join(faults...)
}

// aws reads where platform aws works.
func (s *Settings) aws(region, identity string, fault func(string, ...any)) {
	s.AWS = AWS{Region: region, SourceIdentity: identity}
	if identity != "" && !sourceIdentity.MatchString(identity) {
		fault("A3_AWS_SOURCE_IDENTITY is %q: it is a name of 2 to 64 letters, digits and _+=,.@-", identity)
	}
	if s.Platform != atAWS {
		return
	}
	if region == "" {
		fault("A3_AWS_REGION is empty: name the Region that the plane's tenants are in, as eu-central-1")
	}
	// Both are in what users are given, and in what iam says that it is: it would be another issuer later.
	if s.Port != balancerPort {
		fault("A3_PORT is %d: on platform aws people come to the load balancer, which listens on %d alone; leave the variable out", s.Port, balancerPort)
	}
	if s.Domain == defaultDomain {
		fault("A3_DOMAIN is %s: on platform aws it is the domain that the plane's stack was rendered for (fleet aws render --domain)", s.Domain)
	}
}

// awsDatabase reads how components reach databases of RDS.
func (s *Settings) awsDatabase(ca, login string, fault func(string, ...any)) {
	s.AWS.DatabaseTokens = login == "token"
	if login != "token" && login != "password" {
		fault("A3_AWS_DATABASE_LOGIN is %q: it is password, or token where roles log in by tokens of IAM", login)
	}
	if ca == "" {
		return
	}
	var err error
	if s.AWS.DatabaseCA, err = filepath.Abs(ca); err != nil {
		fault("A3_AWS_DATABASE_CA is %q: %v", ca, err)
	}
}

// backups reads how often backups are made, and how many are kept.
func (s *Settings) backups(every, keep string, fault func(string, ...any)) {
	var err error
	if every != "none" {
		if s.BackupEvery, err = time.ParseDuration(every); err != nil || s.BackupEvery < time.Second {
			fault("A3_BACKUP_EVERY is %q: it is a time, as 24h, or none", every)
		}
	}
	if s.BackupKeep, err = strconv.Atoi(keep); err != nil || s.BackupKeep < 1 {
		fault("A3_BACKUP_KEEP is %q: it is how many backups of a tenant are kept, 1 or more", keep)
	}
}

// origins reads a list of browser origins. None is a pattern: whoever may call is named. What a browser says of a page without TLS is anybody's
// on the way to it, but where the page is on the reader's own machine.
func origins(text string, fault func(string, ...any)) []string {
	var out []string
	for o := range strings.SplitSeq(text, ",") {
		if o = strings.TrimSpace(o); o == "" {
			continue
		}
		if !isOrigin(o) {
			fault("A3_CORS_ORIGINS names %q: it is an origin as browsers say it, https://app.example.com or https://app.example.com:8443, in lower case "+
				"and without a path; http only of localhost", o)
			continue
		}
		out = append(out, o)
	}
	return out
}

func isOrigin(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme+"://"+u.Host != text || strings.HasSuffix(u.Host, ":") {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	if ip == nil && slices.ContainsFunc(strings.Split(u.Hostname(), "."), func(l string) bool { return !hostLabel.MatchString(l) }) {
		return false
	}
	switch u.Scheme {
	case "https":
		return u.Port() != "443"
	case "http":
		return u.Port() != "80" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
	}
	return false
}

// prefixes reads a list of IPv4 networks.
func prefixes(variable, text string, fault func(string, ...any)) []netip.Prefix {
	var out []netip.Prefix
	for p := range strings.SplitSeq(text, ",") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		n, err := netip.ParsePrefix(p)
		if err != nil || !n.Addr().Is4() || n.Masked() != n {
			fault("%s names %q: it is an IPv4 network, as 10.20.0.0/16", variable, p)
			continue
		}
		out = append(out, n)
	}
	return out
}

// slugs reads a list of slugs; `none` is the empty list.
func slugs(variable, text string, fault func(string, ...any)) []string {
	var out []string
	if text == "none" {
		return nil
	}
	for s := range strings.SplitSeq(text, ",") {
		s = strings.TrimSpace(s)
		switch {
		case s == "":
		case !snapshot.IsLabel(s):
			fault("%s names %q: a tenant's slug is lower-case letters, digits and hyphens, begins with a letter and has at most 40 characters", variable, s)
		case slices.Contains(out, s):
			fault("%s names %s twice", variable, s)
		default:
			out = append(out, s)
		}
	}
	return out
}

// Apex is the slug of the tenant that the bare domain leads to: the only one, of a plane that serves one company under its own name.
func (s Settings) Apex() string {
	if s.Domain != defaultDomain && len(s.Tenants) == 1 {
		return s.Tenants[0]
	}
	return ""
}

// URL is where a tenant's people reach it.
func (s Settings) URL(slug string) string {
	host := slug + "." + s.Domain
	if s.Apex() == slug {
		host = s.Domain
	}
	if s.Port == 443 {
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(s.Port))
}

// Address is what the gateway listens on, host:port.
func (s Settings) Address() string { return net.JoinHostPort(s.Listen, strconv.Itoa(s.Port)) }

// Dial is where a program on this machine reaches the gateway: an address that means "all" can't be dialled everywhere.
func (s Settings) Dial() string {
	host := s.Listen
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(s.Port))
}

// Root is the checkout that a program in its bin/ belongs to, else the working directory.
func Root() (string, error) {
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			root := filepath.Dir(filepath.Dir(self))
			if _, err := os.Stat(filepath.Join(root, "go.work")); err == nil {
				return root, nil
			}
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	return wd, nil
}
