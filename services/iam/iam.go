// Package iam is the tenant's issuer and the home of its people, service accounts, workspaces and members. This file wires it.
package iam

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/config"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/place"
	"a3os.app/libs/rpc"
	"a3os.app/libs/set"
	"a3os.app/libs/workload"

	"a3os.app/services/iam/internal/denial"
	"a3os.app/services/iam/internal/issuer"
	"a3os.app/services/iam/internal/keyring"
	"a3os.app/services/iam/internal/retention"
	"a3os.app/services/iam/internal/revocation"
	"a3os.app/services/iam/internal/server"
	"a3os.app/services/iam/internal/setup"
)

// Service is the name of this service in its set.
const Service = "iam"

// Config is what iam is told.
type Config struct {
	Set               set.Config
	DatabaseURL       config.Secret `env:"DATABASE_URL" desc:"connection string of role_iam, which works in one workspace"`
	TenantDatabaseURL config.Secret `env:"TENANT_DATABASE_URL" desc:"connection string of role_iam_tenant, which spans workspaces"`
	TenantSlug        string        `env:"TENANT_SLUG" desc:"slug of the tenant, as in its URL"`
	KEK               config.Secret `env:"KEK" desc:"key that signing keys rest under: 32 bytes in base64, or a Tink keyset"`
	KMSKey            []string      `env:"KMS_KEY" envDefault:"" desc:"keys of AWS KMS that signing keys rest under instead, awskms://arn:…, the one that seals first"`
	Intermediate      string        `env:"INTERMEDIATE" desc:"file with the tenant's issuing intermediate, certificate and key"`
	BootstrapEmail    string        `env:"BOOTSTRAP_ADMIN_EMAIL" envDefault:"" desc:"address of the tenant's first admin"`
	BootstrapCodeHash string        `env:"BOOTSTRAP_CODE_HASH" envDefault:"" desc:"SHA-256 in hex of the first admin's setup code"`
}

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	owner, err := cfg.Set.Owner()
	if err != nil {
		return err
	}
	workspaceDB, err := pg.Open(ctx, pg.Config{URL: cfg.DatabaseURL.Reveal(), Service: Service, Owner: owner})
	if err != nil {
		return err
	}
	defer workspaceDB.Close()
	tenantDB, err := pg.Open(ctx, pg.Config{URL: cfg.TenantDatabaseURL.Reveal(), Service: Service + "_tenant",
		Owner: owner, Setting: "A3_TENANT_DATABASE_URL"})
	if err != nil {
		return err
	}
	defer tenantDB.Close()
	kek, err := keyring.NewKEK(cfg.KEK)
	if err != nil {
		return err
	}
	outer, err := place.Keys(ctx, cfg.KMSKey, owner, "signing-keys")
	if err != nil {
		return fmt.Errorf("A3_KMS_KEY: %w", err)
	}
	// What follows writes, so it is proven first that it is written where it belongs.
	if err := owner.Prove(ctx); err != nil {
		return err
	}
	keys, err := keyring.Open(ctx, tenantDB, cfg.Set.Tenant, kek.Under(outer...), time.Now)
	if err != nil {
		return err
	}
	if err := setup.Bootstrap(ctx, tenantDB, cfg.BootstrapEmail, cfg.BootstrapCodeHash, time.Now()); err != nil {
		return err
	}
	member, err := set.JoinIssuer(ctx, cfg.Set, Service, owner, keys)
	if err != nil {
		return err
	}
	authority, err := workload.OpenAuthorityFile(cfg.Intermediate, member.Identity.TrustDomain())
	if err != nil {
		return err
	}
	pages, err := pageSealer(cfg.KEK)
	if err != nil {
		return err
	}
	licensed, err := cfg.Set.Licence(tenantDB)
	if err != nil {
		return err
	}
	feed := revocation.NewFeed(tenantDB, keys)
	denials := denial.NewCounter(tenantDB, rpc.Source)
	iss, err := issuer.New(issuer.Config{
		Issuer: cfg.Set.Issuer, Tenant: cfg.Set.Tenant, DB: tenantDB, Keys: keys, Denials: denials, Revoked: feed.Wake, Now: time.Now,
	})
	if err != nil {
		return err
	}
	rights := server.Rights{Workspace: workspaceDB, Tenant: tenantDB, Revoked: feed.Wake, Now: time.Now, Licence: licensed}
	return member.Serve(ctx, set.Serving{
		DB:       tenantDB,
		Services: services(rights, pages, keys, feed, denials, cfg.TenantSlug, authority),
		Routes:   routes(iss),
		Licence:  licensed,
		Ready:    tenantDB.Ping,
		Figures: func(_ context.Context, f *setv1.Figures) {
			f.AuthorityExpiresAt = timestamppb.New(authority.NotAfter())
		},
		Background: []func(context.Context) error{
			feed.Run,
			denials.Run,
			func(ctx context.Context) error { return follow(ctx, member, feed, keys) },
		},
		Upkeep: []func(context.Context) error{retention.Job{Workspace: workspaceDB, Tenant: tenantDB, Keys: keys.Maintain, Now: time.Now}.Run},
	})
}

// services are the RPCs of iam.
func services(rights server.Rights, pages *page.Sealer, keys *keyring.Ring, feed *revocation.Feed, denials *denial.Counter, slug string, authority server.Authority) []rpc.Service {
	users, accounts := server.NewUsers(rights, pages), server.NewServiceAccounts(rights, pages)
	signing := server.NewSigningKeys(rights, keys)
	workspaces, members := server.NewWorkspaces(rights, pages), server.NewMembers(rights, pages)
	return []rpc.Service{
		rpc.Mount(iamv1connect.NewIdentityServiceHandler, iamv1connect.IdentityServiceHandler(server.NewIdentity(rights, slug))),
		rpc.Mount(iamv1connect.NewSetupServiceHandler, iamv1connect.SetupServiceHandler(server.NewSetup(rights, denials, rpc.Source))),
		rpc.Mount(iamv1connect.NewUserServiceHandler, iamv1connect.UserServiceHandler(users)),
		rpc.Mount(iamv1connect.NewUserWriteServiceHandler, iamv1connect.UserWriteServiceHandler(users)),
		rpc.Mount(iamv1connect.NewAdminUserServiceHandler, iamv1connect.AdminUserServiceHandler(users)),
		rpc.Mount(iamv1connect.NewServiceAccountServiceHandler, iamv1connect.ServiceAccountServiceHandler(accounts)),
		rpc.Mount(iamv1connect.NewServiceAccountWriteServiceHandler, iamv1connect.ServiceAccountWriteServiceHandler(accounts)),
		rpc.Mount(iamv1connect.NewWorkspaceServiceHandler, iamv1connect.WorkspaceServiceHandler(workspaces)),
		rpc.Mount(iamv1connect.NewWorkspaceWriteServiceHandler, iamv1connect.WorkspaceWriteServiceHandler(workspaces)),
		rpc.Mount(iamv1connect.NewAdminWorkspaceServiceHandler, iamv1connect.AdminWorkspaceServiceHandler(workspaces)),
		rpc.Mount(iamv1connect.NewMemberServiceHandler, iamv1connect.MemberServiceHandler(members)),
		rpc.Mount(iamv1connect.NewMemberWriteServiceHandler, iamv1connect.MemberWriteServiceHandler(members)),
		rpc.Mount(iamv1connect.NewSigningKeyServiceHandler, iamv1connect.SigningKeyServiceHandler(signing)),
		rpc.Mount(iamv1connect.NewAdminSigningKeyServiceHandler, iamv1connect.AdminSigningKeyServiceHandler(signing)),
		rpc.Mount(iamv1connect.NewRevocationServiceHandler, iamv1connect.RevocationServiceHandler(server.NewRevocations(feed))),
		rpc.Mount(iamv1connect.NewUsageServiceHandler, iamv1connect.UsageServiceHandler(server.NewUsage(rights))),
		rpc.Mount(iamv1connect.NewCertificateServiceHandler, iamv1connect.CertificateServiceHandler(server.NewCertificates(rights, authority))),
	}
}

// routes are the plain HTTP routes of the issuer.
func routes(iss *issuer.Issuer) []rpc.Route {
	var out []rpc.Route
	for _, r := range iss.Routes() {
		out = append(out, rpc.Route{Pattern: r.Pattern, Handler: r.Handler, Open: r.Open})
	}
	return out
}

// follow tells this process's own verifier what was revoked, as the stream tells the other services.
func follow(ctx context.Context, member *set.Member, feed *revocation.Feed, keys *keyring.Ring) error {
	generation := keys.Generation()
	member.Revocations.Follow(ctx, func(ctx context.Context, after int64, apply func([]*iamv1.Revocation, int64)) error {
		return feed.Watch(ctx, after, func(m *iamv1.WatchRevocationsResponse) error {
			apply(m.GetRevocations(), m.GetHeadSequence())
			if g := keys.Generation(); g != generation {
				generation = g
				member.Revocations.LookAgain()
			}
			return nil
		})
	})
	return ctx.Err()
}

// pageSealer seals page tokens under a key derived from the key-encryption key, which all processes of this service share.
func pageSealer(kek config.Secret) (*page.Sealer, error) {
	secret, err := hkdf.Key(sha256.New, []byte(kek.Reveal()), nil, "a3os iam pages", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the page key: %w", err)
	}
	return page.NewSealer(secret)
}
