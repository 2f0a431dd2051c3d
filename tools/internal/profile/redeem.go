package profile

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"a3os.app/libs/rpc/rpcclient"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

// Redeem trades a setup code for a session and saves the profile with it, in place of one of that name. The code works once, so
// everything that can be wrong with the profile is found before it is spent.
func (s Store) Redeem(ctx context.Context, p *Profile, code string) (*iamv1.User, error) {
	client, err := s.ready(p)
	if err != nil {
		return nil, err
	}
	unlock, err := s.Lock(ctx, p.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	setup := rpcclient.ToTenant(client, p.URL, func(context.Context) (string, error) { return "", nil }, iamv1connect.NewSetupServiceClient)
	res, err := setup.RedeemSetupCode(ctx, connect.NewRequest(&iamv1.RedeemSetupCodeRequest{Code: code}))
	if err != nil {
		return nil, err
	}
	p.RefreshToken, p.Principal, p.Access = res.Msg.GetRefreshToken(), res.Msg.GetUser().GetEmail(), nil
	p.ServiceAccountID, p.PrivateKey = "", ""
	return res.Msg.GetUser(), s.Save(p)
}

// Assert signs a service account in once, to see that it can, and saves the profile, in place of one of that name.
func (s Store) Assert(ctx context.Context, p *Profile) error {
	client, err := s.ready(p)
	if err != nil {
		return err
	}
	unlock, err := s.Lock(ctx, p.Name)
	if err != nil {
		return err
	}
	defer unlock()
	p.RefreshToken, p.Access = "", nil
	if err := p.Check(); err != nil {
		return err
	}
	session := &Session{store: s, name: p.Name, client: client, now: time.Now}
	_, err = session.signIn(ctx, p)
	return err
}

// ready checks all of a profile but its credential, and that it can be saved.
func (s Store) ready(p *Profile) (*http.Client, error) {
	if err := CheckName(p.Name); err != nil {
		return nil, err
	}
	clean, err := CleanURL(p.URL)
	if err != nil {
		return nil, err
	}
	p.URL = clean
	client, err := Client(s.Path(p.CACert), p.DialAddress)
	if err != nil {
		return nil, fmt.Errorf("profile %q: %w", p.Name, err)
	}
	return client, nil
}
