package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/profile"
	"a3os.app/tools/internal/show"
)

// loginFlags are where to sign in, and with what.
type loginFlags struct {
	url, code, account, key, ca, dial string
}

func (a *app) login() *cobra.Command {
	var f loginFlags
	c := &cobra.Command{
		Use:   "login --url URL (--setup-code CODE | --service-account ID --key FILE)",
		Short: "Sign in at a tenant and keep it as a profile",
		Long: `login makes a profile, named by --profile or else after the URL's host. A person redeems the setup code that a tenant admin handed
over ("a3 user invite" or "a3 user reinvite"); it works once, within 15 minutes. A program signs in with the key of its service account, which stays where it is.

The tenant's certificate authority and the address to dial are taken from another profile of the same host, when not given.`,
		Example: `  a3 --profile alice login --url https://acme.a3os.app --setup-code -
  a3 --profile ci login --url https://acme.a3os.app --service-account svc_01h455vb4pex5vsknk084sn02q --key ci.pem --workspace payroll`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error { return a.signIn(ctx, f) }),
	}
	flags := c.Flags()
	flags.StringVar(&f.url, "url", "", "the tenant's URL, as https://acme.a3os.app")
	flags.StringVar(&f.code, "setup-code", "", "setup code; - reads it from standard input")
	flags.StringVar(&f.account, "service-account", "", "id of the service account (svc_…)")
	flags.StringVar(&f.key, "key", "", "file with the service account's private key")
	flags.StringVar(&f.ca, "ca-cert", "", "PEM file with the authorities to trust for this tenant; else the machine's own")
	flags.StringVar(&f.dial, "dial", "", "host:port to connect to, whatever the URL's host")
	c.MarkFlagsOneRequired("setup-code", "service-account")
	c.MarkFlagsMutuallyExclusive("setup-code", "service-account")
	c.MarkFlagsRequiredTogether("service-account", "key")
	_ = c.MarkFlagRequired("url")
	return c
}

func (a *app) signIn(ctx context.Context, f loginFlags) error {
	s, err := a.store()
	if err != nil {
		return err
	}
	p, err := a.newProfile(s, f)
	if err != nil {
		return usage(err)
	}
	if f.account != "" {
		p.ServiceAccountID = f.account
		if p.PrivateKey, err = filepath.Abs(f.key); err != nil {
			return fmt.Errorf("find the key: %w", err)
		}
		if err := s.Assert(ctx, p); err != nil {
			return err
		}
	} else {
		code := f.code
		if code == "-" {
			if code, err = a.line("the setup code"); err != nil {
				return err
			}
		}
		if _, err := s.Redeem(ctx, p, strings.TrimSpace(code)); err != nil {
			return err
		}
	}
	return a.settle(ctx, p.Name)
}

// newProfile is the profile to be, without its credential.
func (a *app) newProfile(s profile.Store, f loginFlags) (*profile.Profile, error) {
	clean, err := profile.CleanURL(f.url)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(clean)
	if err != nil {
		return nil, err
	}
	slug, _, _ := strings.Cut(u.Hostname(), ".")
	p := &profile.Profile{Name: a.profile, URL: clean, Slug: slug, CACert: f.ca, DialAddress: f.dial}
	if p.Name == "" {
		p.Name = slug
	}
	if p.CACert != "" {
		if p.CACert, err = filepath.Abs(p.CACert); err != nil {
			return nil, err
		}
	}
	if p.DialAddress != "" {
		if _, _, err := net.SplitHostPort(p.DialAddress); err != nil {
			return nil, fmt.Errorf("--dial %q is not of the form host:port", p.DialAddress)
		}
	}
	inherit(s, p, u)
	if host := u.Hostname(); p.DialAddress == "" && (host == "localhost" || strings.HasSuffix(host, ".localhost")) {
		port := u.Port()
		if port == "" {
			port = "443"
		}
		p.DialAddress = net.JoinHostPort("127.0.0.1", port)
	}
	return p, profile.CheckName(p.Name)
}

// inherit takes from a profile of the same host how it is reached, where nothing else was said.
func inherit(s profile.Store, p *profile.Profile, u *url.URL) {
	names, err := s.List()
	if err != nil {
		return
	}
	for _, name := range names {
		other, err := s.Load(name)
		if err != nil {
			continue
		}
		if o, err := url.Parse(other.URL); err != nil || o.Host != u.Host {
			continue
		}
		if p.CACert == "" {
			p.CACert = other.CACert
		}
		if p.DialAddress == "" {
			p.DialAddress = other.DialAddress
		}
		return
	}
}

// settle completes a profile that has just signed in, with who it is and where it works, and shows it.
func (a *app) settle(ctx context.Context, name string) error {
	a.profile = name
	t, err := a.open()
	if err != nil {
		return err
	}
	self, err := ask(ctx, across(t, iamv1connect.NewIdentityServiceClient).GetSelf, &iamv1.GetSelfRequest{})
	if err != nil {
		return err
	}
	workspace := ""
	if a.workspace != "" {
		w, err := t.findWorkspace(ctx, a.workspace)
		if err != nil {
			return fmt.Errorf("you are signed in as profile %q, but have no workspace to work in: %w", name, err)
		}
		workspace = w.GetId()
	}
	err = t.store.Update(ctx, name, func(p *profile.Profile) error {
		p.Principal, p.WorkspaceID = self.GetDisplayName(), workspace
		if slug := self.GetTenantSlug(); slug != "" {
			p.Slug = slug
		}
		return nil
	})
	if err != nil {
		return err
	}
	return a.answer(self, func() error {
		a.print("%s is signed in at %s, as profile %q", show.Text(self.GetDisplayName()), t.profile.URL, name)
		return nil
	})
}

func (a *app) tokenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "token",
		Short: "Print an access token, for curl and other clients",
		Long: `token prints an access token to standard output and nothing else. It is for the tenant as a whole, or with --workspace for that
workspace, and has at least a minute left to live, ten at most. Whoever has it can act as you until then.`,
		Example: `  curl -H "Authorization: Bearer $(a3 token)" …
  a3 token --workspace payroll`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			if a.workspace != "" {
				w, err := t.findWorkspace(ctx, a.workspace)
				if err != nil {
					return err
				}
				t.workspace = w.GetId()
			}
			token, err := t.Token(ctx, t.workspace)
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.Out, map[string]string{"access_token": token, "workspace_id": t.workspace})
			}
			a.print("%s", token)
			return nil
		}),
	}
}

func (a *app) whoami() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show who you are to the tenant, and what you may do",
		Example: `  a3 whoami
  a3 whoami --workspace payroll`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.whoeverIs(ctx)
			if err != nil {
				return err
			}
			self, err := ask(ctx, within(t, iamv1connect.NewIdentityServiceClient).GetSelf, &iamv1.GetSelfRequest{})
			if err != nil {
				return err
			}
			return a.answer(self, func() error {
				return show.Facts(a.Out,
					"name", self.GetDisplayName(), "principal", self.GetPrincipalId(),
					"tenant", strings.TrimSpace(self.GetTenantSlug()+" "+self.GetTenantId()), "plane", self.GetPlane(),
					"workspace", self.GetWorkspaceId(), "may", strings.Join(self.GetPermissions(), ", "),
					"token until", show.Time(self.GetExpiresAt()), "profile", t.profile.Name, "url", t.profile.URL)
			})
		}),
	}
}

// whoeverIs readies the profile for the named workspace, or for the tenant as a whole where none was named.
func (a *app) whoeverIs(ctx context.Context) (*tenant, error) {
	if a.workspace != "" {
		return a.enter(ctx)
	}
	return a.open()
}

func (a *app) profileGroup() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the profiles on this machine",
		Example: `  a3 profile list`,
		Args:    exactly(),
		RunE:    a.doing(func(context.Context, []string) error { return a.listProfiles() }),
	}
	return group("profile", "Identities kept on this machine", list)
}

// profileView is a profile without its secrets.
type profileView struct {
	Name        string `json:"name"`
	URL         string `json:"url"`
	Tenant      string `json:"tenant"`
	Principal   string `json:"principal"`
	WorkspaceID string `json:"workspace_id"`
}

func (a *app) listProfiles() error {
	s, err := a.store()
	if err != nil {
		return err
	}
	names, err := s.List()
	if err != nil {
		return err
	}
	views := []profileView{}
	table := show.NewTable("profile", "tenant", "who", "workspace", "url")
	var bad error
	for _, name := range names {
		p, err := s.Load(name)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		who := p.Principal
		if who == "" {
			who = p.ServiceAccountID
		}
		views = append(views, profileView{Name: name, URL: p.URL, Tenant: p.Slug, Principal: who, WorkspaceID: p.WorkspaceID})
		table.Row(name, p.Slug, who, p.WorkspaceID, p.URL)
	}
	if bad != nil {
		a.say("a3: %v", bad)
	}
	if a.json() {
		return show.JSON(a.Out, map[string]any{"profiles": views})
	}
	return a.list(table, fmt.Sprintf("there is no profile in %s yet: make one with `a3 login`", s.Dir))
}
