//! What every `ExecutionPlan` of this crate writes alike.

use datafusion::error::{DataFusionError, Result};

/// The methods of `ExecutionPlan` that replace children, all by one body; plans here have no
/// expressions.
macro_rules! with_children {
    ($self:ident, $children:ident, $body:block) => {
        fn replace_children(
            $self: Arc<Self>,
            $children: Vec<Arc<dyn ExecutionPlan>>,
            _: datafusion::physical_plan::ReplaceChildrenOptions,
        ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
            crate::plan::same_number($self.children().len(), $children.len())?;
            $body
        }

        fn with_new_children(
            self: Arc<Self>,
            children: Vec<Arc<dyn ExecutionPlan>>,
        ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
            self.replace_children(
                children,
                datafusion::physical_plan::ReplaceChildrenOptions::new(
                    datafusion::physical_plan::ChildrenPropertiesMode::Recompute,
                ),
            )
        }

        fn apply_expressions(
            &self,
            _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
        ) -> DataFusionResult<TreeNodeRecursion> {
            Ok(TreeNodeRecursion::Continue)
        }
    };
}
pub(crate) use with_children;

/// Refuses another number of children than a plan has.
pub(crate) fn same_number(had: usize, given: usize) -> Result<()> {
    if had == given {
        Ok(())
    } else {
        Err(DataFusionError::Internal(format!(
            "a plan of {had} children was given {given}"
        )))
    }
}

/// What belongs to a partition.
///
/// # Errors
/// There is no such partition.
pub(crate) fn partition<T: Copy>(partitions: &[T], partition: usize) -> Result<T> {
    partitions.get(partition).copied().ok_or_else(|| {
        DataFusionError::Internal(format!(
            "partition {partition} of a plan with {} was asked for",
            partitions.len()
        ))
    })
}
