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

/// The methods of `ExecutionPlan` that a plan with one child, `input`, and `properties` writes like
/// any other; the last argument makes it anew for another child.
macro_rules! with_input {
    ($self:ident, $name:literal, $input:ident, $again:expr) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn properties(&self) -> &Arc<PlanProperties> {
            &self.properties
        }

        fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
            vec![&self.input]
        }

        crate::plan::with_children!($self, children, {
            let $input = children
                .into_iter()
                .next()
                .unwrap_or_else(|| Arc::clone(&$self.input));
            Ok(Arc::new($again))
        });
    };
}
pub(crate) use with_input;

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

/// Refuses a partition that a plan does not have.
pub(crate) fn check_partition(partitions: usize, partition: usize) -> Result<()> {
    if partition < partitions {
        Ok(())
    } else {
        Err(DataFusionError::Internal(format!(
            "partition {partition} of a plan with {partitions} was asked for"
        )))
    }
}
