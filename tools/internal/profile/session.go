package profile

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"a3os.app/libs/fault"
)

// slack is the life that a token must have left to be handed out: long enough for the call it is for.
const slack = time.Minute

// Session is a profile in use. It is safe for concurrent use.
type Session struct {
	store  Store
	name   string
	client *http.Client
	now    func() time.Time
}

// Open readies a profile for use. It fails with ErrNone where there is none of that name.
func (s Store) Open(name string) (*Session, error) {
	p, err := s.Load(name)
	if err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	client, err := Client(s.Path(p.CACert), p.DialAddress)
	if err != nil {
		return nil, fmt.Errorf("profile %q: %w", name, err)
	}
	return &Session{store: s, name: name, client: client, now: time.Now}, nil
}

// Client reaches the tenant. It presents nothing by itself.
func (s *Session) Client() *http.Client { return s.client }

// Profile is the profile as it is now.
func (s *Session) Profile() (*Profile, error) { return s.store.Load(s.name) }

// Token is an access token with at least a minute left, for a workspace (`wsp_…`) or, where that is empty, for the tenant. It asks
// the issuer only when the one that is kept is too old. The error is of kind Unauthenticated where the credential is no longer good,
// and PermissionDenied where the principal is no member of the workspace.
func (s *Session) Token(ctx context.Context, workspace string) (string, error) {
	p, err := s.store.Load(s.name)
	if err != nil {
		return "", err
	}
	if t, ok := s.kept(p, workspace); ok {
		return t, nil
	}
	unlock, err := s.store.Lock(ctx, s.name)
	if err != nil {
		return "", err
	}
	defer unlock()
	// Another program may have refreshed while this one waited: with the token it used, this one would end the session.
	if p, err = s.store.Load(s.name); err != nil {
		return "", err
	}
	if t, ok := s.kept(p, workspace); ok {
		return t, nil
	}
	own, ok := s.kept(p, "")
	if !ok {
		if own, err = s.signIn(ctx, p); err != nil {
			return "", err
		}
	}
	if workspace == "" {
		return own, nil
	}
	e := s.endpoint(p)
	res, err := e.exchange(ctx, own, workspace)
	if fault.KindOf(err) == fault.Unauthenticated {
		// The kept token may have been revoked (a role or a membership changed), and the session be good: ask once more.
		if own, err = s.signIn(ctx, p); err != nil {
			return "", err
		}
		res, err = e.exchange(ctx, own, workspace)
	}
	if err != nil {
		return "", err
	}
	return res.AccessToken, s.keep(p, workspace, res)
}

// TokenFor is Token for one workspace, in the form that rpcclient.ToTenant takes.
func (s *Session) TokenFor(workspace string) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { return s.Token(ctx, workspace) }
}

// renew is Token where the tenant refused one that was handed out.
func (s *Session) renew(ctx context.Context, workspace, refused string) (string, error) {
	err := s.store.Update(ctx, s.name, func(p *Profile) error {
		if p.Access[workspace].Token == refused {
			p.Access = nil
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return s.Token(ctx, workspace)
}

func (s *Session) kept(p *Profile, workspace string) (string, bool) {
	a, ok := p.Access[workspace]
	return a.Token, ok && a.Token != "" && a.ExpiresAt.Sub(s.now()) >= slack
}

// signIn gets a tenant-wide access token for the credential. A refresh token is spent by it, so its successor is saved before
// anything else is done.
func (s *Session) signIn(ctx context.Context, p *Profile) (string, error) {
	e := s.endpoint(p)
	var res *answer
	var err error
	if p.ServiceAccountID != "" {
		res, err = e.assert(ctx, p.ServiceAccountID, s.store.Path(p.PrivateKey), s.now())
	} else {
		res, err = e.refresh(ctx, p.RefreshToken)
	}
	if fault.KindOf(err) == fault.Unauthenticated {
		return "", over(p, err)
	}
	if err != nil {
		return "", err
	}
	if res.RefreshToken != "" {
		p.RefreshToken = res.RefreshToken
	}
	// Tokens of workspaces rest on the old one, and may say what is no longer so.
	p.Access = nil
	return res.AccessToken, s.keep(p, "", res)
}

// over says what to do about a credential that is no longer good.
func over(p *Profile, err error) error {
	if p.ServiceAccountID != "" {
		return fault.Wrap(fault.Unauthenticated, err, "the tenant does not let %s in with the key %s: was the account deleted, or made with another key?", p.ServiceAccountID, p.PrivateKey)
	}
	return fault.Wrap(fault.Unauthenticated, err,
		"profile %q is no longer signed in: ask a tenant admin for a setup code (`a3 user reinvite`) and use `a3 --profile %s login`", p.Name, p.Name)
}

func (s *Session) keep(p *Profile, workspace string, res *answer) error {
	now := s.now()
	for w, a := range p.Access {
		if !a.ExpiresAt.After(now) {
			delete(p.Access, w)
		}
	}
	if p.Access == nil {
		p.Access = map[string]Access{}
	}
	p.Access[workspace] = Access{Token: res.AccessToken, ExpiresAt: now.Add(time.Duration(res.ExpiresIn) * time.Second).UTC().Truncate(time.Second)}
	return s.store.Save(p)
}

func (s *Session) endpoint(p *Profile) endpoint { return endpoint{client: s.client, issuer: p.URL} }
