package command

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/profile"
	"a3os.app/tools/internal/show"
)

func (a *app) serviceAccountGroup() *cobra.Command {
	var keyOut, asRole string
	create := &cobra.Command{
		Use: "create NAME --key-out FILE", Short: "Register a program, with a key pair made here (tenant admins)",
		Long: `create makes a key pair (ECDSA P-256), writes the private half to FILE, readable by you alone, and registers the public half. The private
half never leaves this machine. To let the program into a workspace use "a3 member add".`,
		Example: `  a3 service-account create ci --key-out ci.pem
  a3 --profile ci login --url https://acme.a3os.app --service-account svc_… --key ci.pem`,
		Args: exactly("NAME"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			r, err := tenantRole(asRole)
			if err != nil {
				return err
			}
			return a.createServiceAccount(ctx, &iamv1.CreateServiceAccountRequest{Name: args[0], TenantRole: r}, keyOut)
		}),
	}
	create.Flags().StringVar(&keyOut, "key-out", "", "file to write the private key to; it must not exist")
	_ = create.MarkFlagRequired("key-out")
	tenantRoleFlag(create, &asRole)
	list := &cobra.Command{
		Use: "list", Short: "List the tenant's service accounts (tenant admins and auditors)",
		Example: `  a3 service-account list`,
		Args:    exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			all, err := t.serviceAccounts(ctx)
			if err != nil {
				return err
			}
			return a.answer(all, func() error {
				table := show.NewTable("name", "service account", "tenant role", "key", "created")
				for _, s := range all.GetServiceAccounts() {
					table.Row(s.GetName(), s.GetId(), word(s.GetTenantRole(), tenantRolePrefix), s.GetKeyId(), show.Time(s.GetCreatedAt()))
				}
				return a.list(table, "the tenant has no service accounts: make one with `a3 service-account create`")
			})
		}),
	}
	remove := &cobra.Command{
		Use: "delete SERVICE-ACCOUNT", Short: "Remove a program; its tokens stop working within 5 seconds (tenant admins)",
		Example: `  a3 service-account delete ci`,
		Args:    exactly("SERVICE-ACCOUNT"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			account, err := t.findServiceAccount(ctx, args[0])
			if err != nil {
				return err
			}
			res, err := ask(ctx, across(t, iamv1connect.NewServiceAccountWriteServiceClient).DeleteServiceAccount,
				&iamv1.DeleteServiceAccountRequest{ServiceAccountId: account})
			if err != nil {
				return err
			}
			return a.answer(res, func() error {
				a.print("%s is deleted", show.Text(args[0]))
				return nil
			})
		}),
	}
	return group("service-account", "Programs that sign in with a key of their own", a.creates(create), list, remove)
}

func (a *app) createServiceAccount(ctx context.Context, req *iamv1.CreateServiceAccountRequest, keyOut string) error {
	t, err := a.open()
	if err != nil {
		return err
	}
	if req.PublicKeyPem, err = a.keyPair(keyOut); err != nil {
		return err
	}
	s, err := create(ctx, a, across(t, iamv1connect.NewServiceAccountWriteServiceClient).CreateServiceAccount, req)
	if err != nil {
		if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.DeadlineExceeded {
			return errors.Join(err, os.Remove(keyOut))
		}
		return fmt.Errorf("%s was kept, since the account may have been made (`a3 service-account list`): %w", keyOut, err)
	}
	return a.answer(s, func() error {
		return show.Facts(a.Out, "name", s.GetName(), "service account", s.GetId(), "tenant role", word(s.GetTenantRole(), tenantRolePrefix),
			"key", s.GetKeyId(), "private key", keyOut, "to be used with", fmt.Sprintf("a3 login --url %s --service-account %s --key %s", t.profile.URL, s.GetId(), keyOut))
	})
}

// keyPair makes a key pair, of which the file has the private half, and answers the public half. A file that exists is used only by a
// command that is run again, as its idempotency key says.
func (a *app) keyPair(file string) (publicPEM string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	err = writeKey(file, key)
	if errors.Is(err, fs.ErrExist) {
		if a.key == "" {
			return "", usage(fmt.Errorf("%s exists, and a key is never overwritten: name another file with --key-out", file))
		}
		key, err = profile.ReadKey(file)
	}
	if err != nil {
		return "", err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})), nil
}

// writeKey writes a private key to a new file, for its owner alone.
func writeKey(file string, key *ecdsa.PrivateKey) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the user names the file
	if err != nil {
		return usage(fmt.Errorf("write the private key: %w", err))
	}
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: private}), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the private key: %w", err)
	}
	return nil
}

func (t *tenant) serviceAccounts(ctx context.Context) (*iamv1.ListServiceAccountsResponse, error) {
	c := across(t, iamv1connect.NewServiceAccountServiceClient)
	return whole(0, func(size int32, token string) (*iamv1.ListServiceAccountsResponse, error) {
		return ask(ctx, c.ListServiceAccounts, &iamv1.ListServiceAccountsRequest{PageSize: size, PageToken: token})
	}, func(r *iamv1.ListServiceAccountsResponse) (*[]*iamv1.ServiceAccount, *string) {
		return &r.ServiceAccounts, &r.NextPageToken
	})
}

// findServiceAccount is a service account by id or name.
func (t *tenant) findServiceAccount(ctx context.Context, name string) (string, error) {
	if _, err := id.ParseServiceAccount(name); err == nil {
		return name, nil
	}
	all, err := t.serviceAccounts(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range all.GetServiceAccounts() {
		if s.GetName() == name {
			return s.GetId(), nil
		}
	}
	return "", fault.New(fault.NotFound, "there is no service account %q: look at `a3 service-account list`", name)
}
