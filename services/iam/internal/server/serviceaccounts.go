package server

import (
	"bytes"
	"context"
	"encoding/pem"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/keyring"
	"a3os.app/services/iam/internal/store"
)

// ServiceAccounts implements ServiceAccountService and ServiceAccountWriteService.
type ServiceAccounts struct {
	rights Rights
	list   paging
}

// NewServiceAccounts makes them.
func NewServiceAccounts(rights Rights, pages *page.Sealer) *ServiceAccounts {
	return &ServiceAccounts{rights: rights, list: paging{pages, "ListServiceAccounts"}}
}

// ListServiceAccounts implements ServiceAccountServiceHandler.
func (s *ServiceAccounts) ListServiceAccounts(ctx context.Context, req *connect.Request[iamv1.ListServiceAccountsRequest]) (*connect.Response[iamv1.ListServiceAccountsResponse], error) {
	after, err := s.list.after(ctx, req.Msg.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := page.Size(req.Msg.GetPageSize())
	var rows []store.ServiceAccount
	err = s.rights.read(ctx, func(ctx context.Context, q *store.Queries) error {
		rows, err = q.ListServiceAccounts(ctx, store.ListServiceAccountsParams{After: after, Most: size + 1})
		return err
	})
	if err != nil {
		return nil, err
	}
	token, keep, err := s.list.next(ctx, len(rows), size, func(i int) [16]byte { return rows[i].ID.Bytes() })
	out := &iamv1.ListServiceAccountsResponse{NextPageToken: token}
	for _, a := range rows[:keep] {
		out.ServiceAccounts = append(out.ServiceAccounts, serviceAccountMessage(a))
	}
	return respond(out, err)
}

// CreateServiceAccount implements ServiceAccountWriteServiceHandler.
func (s *ServiceAccounts) CreateServiceAccount(ctx context.Context, req *connect.Request[iamv1.CreateServiceAccountRequest]) (*connect.Response[iamv1.ServiceAccount], error) {
	params, err := accountParams(req.Msg)
	if err != nil {
		return nil, err
	}
	out, err := pg.Deed(ctx, s.rights.Tenant.Tenant, req.Msg, func(ctx context.Context, tx pgx.Tx) (*iamv1.ServiceAccount, error) {
		a, err := store.New(tx).AddServiceAccount(ctx, params)
		switch {
		case pg.IsUnique(err, "service_accounts_name"):
			return nil, fault.New(fault.AlreadyExists, "a service account of this name exists: choose another name")
		case pg.IsUnique(err, "service_accounts_key"):
			return nil, fault.New(fault.AlreadyExists, "another service account has this key: make a key pair of its own")
		case err != nil:
			return nil, err
		}
		out := serviceAccountMessage(a)
		return out, record.Append(ctx, tx, record.Event{Action: "iam.service_account.created", Target: out.GetId(), After: out})
	})
	return respond(out, err)
}

// DeleteServiceAccount implements ServiceAccountWriteServiceHandler.
func (s *ServiceAccounts) DeleteServiceAccount(ctx context.Context, req *connect.Request[iamv1.DeleteServiceAccountRequest]) (*connect.Response[iamv1.DeleteServiceAccountResponse], error) {
	account, err := id.ParseServiceAccount(req.Msg.GetServiceAccountId())
	if err != nil {
		return nil, errNoAccount
	}
	err = s.rights.Tenant.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if _, err := q.LockRights(ctx); err != nil {
			return err
		}
		if err := q.DeleteMembershipsOfServiceAccount(ctx, account); err != nil {
			return err
		}
		gone, err := q.DeleteServiceAccount(ctx, account)
		if err != nil {
			return notFound(err, errNoAccount)
		}
		if err := q.Revoke(ctx, store.RevokeParams{Principal: account.String()}); err != nil {
			return err
		}
		return record.Append(ctx, tx, record.Event{
			Action: "iam.service_account.deleted", Target: account.String(), Before: serviceAccountMessage(gone),
		})
	})
	if err == nil {
		s.rights.Revoked()
	}
	return respond(&iamv1.DeleteServiceAccountResponse{}, err)
}

func accountParams(req *iamv1.CreateServiceAccountRequest) (store.AddServiceAccountParams, error) {
	p := store.AddServiceAccountParams{ID: id.NewServiceAccount()}
	var err error
	if p.Name, err = clean(req.GetName()); err != nil {
		return p, err
	}
	if p.TenantRole, err = tenantRoleColumn(req.GetTenantRole()); err != nil {
		return p, err
	}
	block, rest := pem.Decode([]byte(req.GetPublicKeyPem()))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return p, fault.New(fault.InvalidArgument,
			"public_key_pem is not one PEM block PUBLIC KEY: send the public half only, as `openssl ec -pubout` writes it")
	}
	key, err := keyring.ParsePublic(block.Bytes)
	if err != nil {
		return p, fault.Wrap(fault.InvalidArgument, err, "public_key_pem is not an ECDSA key on the curve P-256, which ES256 needs")
	}
	p.PublicKey = block.Bytes
	p.KeyID, err = keyring.KeyID(key)
	return p, err
}
