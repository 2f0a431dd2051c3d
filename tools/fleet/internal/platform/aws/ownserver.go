package aws

import (
	"context"
	"fmt"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
)

// How a server and its snapshots say that somebody deleted them already.
const deleting = "deleting"

// ownServer is the set's own server of RDS; nil where there is none.
func (t *tenant) ownServer(ctx context.Context) (*types.DBInstance, error) {
	name := t.place.Server(t.id)
	out, err := rds.NewFromConfig(t.cfg).DescribeDBInstances(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &name})
	switch {
	case gone(err), err == nil && len(out.DBInstances) == 0:
		return nil, nil //nolint:nilnil // none is an answer
	case err != nil:
		return nil, fmt.Errorf("look at database server %s: %w", name, err)
	}
	return &out.DBInstances[0], nil
}

// unprotectServer has the set's own server be deletable.
func (t *tenant) unprotectServer(ctx context.Context) (changed bool, err error) {
	is, err := t.ownServer(ctx)
	if err != nil || is == nil || !sdk.ToBool(is.DeletionProtection) || sdk.ToString(is.DBInstanceStatus) == deleting {
		return false, err
	}
	if _, err := rds.NewFromConfig(t.cfg).ModifyDBInstance(ctx, &rds.ModifyDBInstanceInput{DBInstanceIdentifier: is.DBInstanceIdentifier, DeletionProtection: sdk.Bool(false),
		ApplyImmediately: sdk.Bool(true)}); err != nil {
		return false, fmt.Errorf("have database server %s deletable: %w", sdk.ToString(is.DBInstanceIdentifier), err)
	}
	return true, nil
}

// deleteServer deletes the set's own server, with every copy that RDS keeps of it, before its stack is deleted, which would ask for one more, under a
// key that is gone.
func (t *tenant) deleteServer(ctx context.Context) (changed bool, err error) {
	if changed, err = t.unprotectServer(ctx); err != nil {
		return changed, err
	}
	client, name := rds.NewFromConfig(t.cfg), t.place.Server(t.id)
	is, err := t.ownServer(ctx)
	if err != nil {
		return changed, err
	}
	if is != nil && sdk.ToString(is.DBInstanceStatus) != deleting {
		if _, err := client.DeleteDBInstance(ctx, &rds.DeleteDBInstanceInput{DBInstanceIdentifier: &name, SkipFinalSnapshot: sdk.Bool(true), DeleteAutomatedBackups: sdk.Bool(true)}); err != nil {
			return changed, fmt.Errorf("delete database server %s: %w", name, err)
		}
		changed = true
	}
	wait := rds.NewDBInstanceDeletedWaiter(client, func(o *rds.DBInstanceDeletedWaiterOptions) { o.MinDelay, o.MaxDelay = looksEvery, 15*looksEvery })
	if err := wait.Wait(ctx, &rds.DescribeDBInstancesInput{DBInstanceIdentifier: &name}, time.Hour); err != nil {
		return changed, fmt.Errorf("wait until database server %s is deleted: %w", name, err)
	}
	kept, err := t.snapshots(ctx)
	if err != nil {
		return changed, err
	}
	for _, snapshot := range kept {
		if _, err := client.DeleteDBSnapshot(ctx, &rds.DeleteDBSnapshotInput{DBSnapshotIdentifier: &snapshot}); err != nil && !gone(err) {
			return changed, fmt.Errorf("delete snapshot %s of database server %s: %w: where fleet may not, have an administrator delete it, and go on", snapshot, name, err)
		}
		changed = true
	}
	return changed, nil
}

// snapshots are those of the set's own server that somebody had made, and that nobody deletes.
func (t *tenant) snapshots(ctx context.Context) (out []string, err error) {
	pages := rds.NewDescribeDBSnapshotsPaginator(rds.NewFromConfig(t.cfg), &rds.DescribeDBSnapshotsInput{DBInstanceIdentifier: sdk.String(t.place.Server(t.id)), SnapshotType: sdk.String("manual")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if gone(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for snapshots of database server %s: %w", t.place.Server(t.id), err)
		}
		for _, s := range page.DBSnapshots {
			if sdk.ToString(s.Status) != deleting {
				out = append(out, sdk.ToString(s.DBSnapshotIdentifier))
			}
		}
	}
	return out, nil
}

// leftServer is the set's own server, and what RDS keeps of one that is gone: snapshots, and backups that somebody had it keep.
func (t *tenant) leftServer(ctx context.Context) (out []string, err error) {
	is, err := t.ownServer(ctx)
	if err != nil {
		return nil, err
	}
	if is != nil {
		out = append(out, "database server "+sdk.ToString(is.DBInstanceIdentifier))
	}
	kept, err := t.snapshots(ctx)
	if err != nil {
		return nil, err
	}
	for _, snapshot := range kept {
		out = append(out, "snapshot "+snapshot+" of its database server")
	}
	pages := rds.NewDescribeDBInstanceAutomatedBackupsPaginator(rds.NewFromConfig(t.cfg), &rds.DescribeDBInstanceAutomatedBackupsInput{DBInstanceIdentifier: sdk.String(t.place.Server(t.id))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if gone(err) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for automated backups of database server %s: %w", t.place.Server(t.id), err)
		}
		for _, b := range page.DBInstanceAutomatedBackups {
			if sdk.ToString(b.Status) != deleting {
				out = append(out, "automated backups of its database server (aws rds delete-db-instance-automated-backup --dbi-resource-id "+sdk.ToString(b.DbiResourceId)+")")
			}
		}
	}
	return out, nil
}
