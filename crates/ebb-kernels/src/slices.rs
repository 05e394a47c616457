//! Reading and changing a tensor's values in place, without a copy where the engine allows it.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// Calls `f` with the values of `tensor` in row-major order.
///
/// No copy on the CPU engine when the tensor is contiguous.
pub fn read<const D: usize, R>(tensor: &Tensor<D>, f: impl FnOnce(&[f32]) -> R) -> R {
    let plain = tensor.clone().inner();
    match plain.try_into_primitive::<Flex>() {
        Ok(primitive) => match primitive.as_slice::<f32>() {
            Some(slice) => f(slice),
            None => f(primitive.to_contiguous().storage::<f32>()),
        },
        Err(_) => f(&to_vec(tensor)),
    }
}

/// Numbers that one thread copies at a time.
const PIECE: usize = 1 << 16;

/// Copies numbers, many of them on all threads.
pub fn copy(from: &[f32], to: &mut [f32]) {
    if from.len() <= 2 * PIECE {
        return to.copy_from_slice(from);
    }
    assert_eq!(from.len(), to.len(), "as many numbers as there is room for");
    to.par_chunks_mut(PIECE)
        .zip(from.par_chunks(PIECE))
        .for_each(|(to, from)| to.copy_from_slice(from));
}

/// The values of `tensor` as a vector, in row-major order.
pub fn to_vec<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor
        .clone()
        .inner()
        .into_data()
        .convert::<f32>()
        .try_to_vec::<f32>()
        .unwrap_or_else(|e| panic!("a float tensor holds floats: {e:?}"))
}

/// Calls `f` with exclusive access to the values of `tensor` (row-major).
///
/// In place on the CPU engine when nothing else holds the buffer, otherwise through one copy.
pub fn write<R>(tensor: &mut Tensor<1>, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let device = tensor.device();
    let shape = tensor.dims();
    let owned = std::mem::replace(tensor, Tensor::empty([0], &device));
    match owned.try_into_primitive::<Flex>() {
        Ok(mut primitive)
            if primitive.is_contiguous() && primitive.layout().start_offset() == 0 =>
        {
            let result = f(&mut primitive.storage_mut::<f32>()[..shape[0]]);
            *tensor = Tensor::from_primitive::<Flex>(primitive);
            result
        }
        Ok(primitive) => {
            let mut values = primitive.to_contiguous().storage::<f32>().to_vec();
            let result = f(&mut values);
            *tensor = Tensor::from_data(TensorData::new(values, shape), &device);
            result
        }
        Err(_) => unreachable!("the CPU engine is the only one compiled in"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn writes_reach_the_tensor_and_leave_clones_alone() {
        let device = Device::flex();
        let mut t = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
        let before = t.clone();
        write(&mut t, |v| v[1] = 7.0);
        assert_eq!(to_vec(&t), [1.0, 7.0, 3.0]);
        assert_eq!(to_vec(&before), [1.0, 2.0, 3.0]);
        let address = read(&t, |v| v.as_ptr());
        drop(before);
        write(&mut t, |v| v[0] = 5.0);
        assert_eq!(read(&t, |v| v.as_ptr()), address, "no copy when alone");
    }

    #[test]
    fn reads_strided_tensors_in_row_major_order() {
        let t = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &Device::flex()).transpose();
        assert_eq!(read(&t, <[f32]>::to_vec), [1.0, 3.0, 2.0, 4.0]);
    }
}
